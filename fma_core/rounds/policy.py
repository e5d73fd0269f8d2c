"""When a round closes, what becomes of one that cannot, and when an experiment is over.

Pure decisions over numbers, so that the server and `fma_core.simulate` decide alike. Whoever asks brings the clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fma_core.errors import InvalidParameter
from fma_core.parameters import Bounds, CheckedPart, parameters_of

Verdict = Literal["wait", "close", "quorum_not_met"]
EndReason = Literal["num_rounds", "end_date", "target_metric", "no_improvement"]


@dataclass(frozen=True, slots=True)
class Answers:
    """How far a round is.

    requirement_met: what the model's own requirement says; asked only where the policy has no goal.
    num_asked: the size of the chosen cohort; None where everyone may answer.
    by_organisation: how many answered of each organisation; clients without one count under "".
    """

    num_updates: int
    requirement_met: bool = True
    num_asked: int | None = None
    by_organisation: Mapping[str, int] = field(default_factory=dict)
    deadline_passed: bool = False


@dataclass(frozen=True)
class RoundPolicy(CheckedPart):
    """The rules of a model's rounds. The defaults are FMA's: the requirement closes a round, and nothing ends it.

    A round closes at its goal (without one: when the requirement is met), when all who were asked have answered, or at
    its deadline, if then the quorum has answered. One that fails its quorum at the deadline is opened again, with a new
    deadline and more clients asked, or ends the experiment.
    Source: goal, over-selection and deadline as in Bonawitz et al. 2019, arXiv:1902.01046, section 2.2.
    """

    goal: Annotated[int | None, Bounds(ge=1, le=1_000_000), "how many updates close a round"] = None
    over_selection: Annotated[
        float, Bounds(ge=1, le=100), "how many clients are asked for each update of the goal"
    ] = 1.3
    deadline_s: Annotated[
        float | None, Bounds(gt=0, le=31_536_000), "how long a round may last, in seconds from its start"
    ] = None
    quorum: Annotated[
        int | None,
        Bounds(ge=1, le=1_000_000),
        "how many updates are enough at the deadline; null: min_updates",
    ] = None
    quorum_organisations: Annotated[
        int, Bounds(ge=0, le=100_000), "how many organisations must have answered before a round closes"
    ] = 0
    quorum_per_organisation: Annotated[
        int, Bounds(ge=1, le=1_000_000), "how many clients of an organisation must answer for it to count"
    ] = 1
    min_updates: Annotated[int, Bounds(ge=1, le=1_000_000), "fewer updates are never aggregated"] = 1
    max_updates: Annotated[
        int | None, Bounds(ge=1, le=1_000_000), "more updates are not taken into a round"
    ] = None
    max_update_bytes: Annotated[
        int | None, Bounds(ge=1, le=2**53), "larger updates are not taken, in bytes as they travel"
    ] = None
    late_updates: Annotated[
        Literal["next_round", "refuse"], "what becomes of an update that missed its round"
    ] = "next_round"
    on_failed_quorum: Annotated[
        Literal["reopen", "end"], "what becomes of a round without a quorum at its deadline"
    ] = "reopen"
    max_reopenings: Annotated[
        int | None, Bounds(ge=0, le=1_000_000), "how often a round is opened again before the experiment ends"
    ] = None
    num_rounds: Annotated[
        int | None, Bounds(ge=1, le=1_000_000_000), "how many aggregates the experiment ends after"
    ] = None
    end_date: Annotated[str | None, "when the experiment ends: ISO 8601 with a time zone"] = None
    metric: Annotated[str | None, "the metric that the target and the patience look at"] = None
    metric_source: Annotated[
        Literal["training", "validation"], "whether it is of the updates, or of the clients' scores"
    ] = "training"
    metric_better: Annotated[Literal["higher", "lower"], "which values of it are better"] = "higher"
    target: Annotated[float | None, "the experiment ends when the metric has reached this"] = None
    patience: Annotated[
        int | None, Bounds(ge=1, le=1_000_000), "it ends after so many rounds without improvement"
    ] = None
    min_improvement: Annotated[float, Bounds(ge=0), "by how much a metric must improve to count"] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        most = self.max_updates
        for name in ("goal", "quorum", "min_updates"):
            least = getattr(self, name)
            if most is not None and least is not None and least > most:
                raise ValueError(f"{name} must be at most max_updates, {most}; found {least}")
        if self.goal is not None and self.min_updates > self.goal:
            raise ValueError(f"min_updates must be at most goal, {self.goal}; found {self.min_updates}")
        if self.goal is not None and self.quorum is not None and self.quorum > self.goal:
            raise ValueError(f"quorum must be at most goal, {self.goal}; found {self.quorum}")
        if self.quorum is not None and self.deadline_s is None:
            raise ValueError("quorum needs deadline_s: it is looked at when the deadline has passed")
        for name in ("target", "patience"):
            if getattr(self, name) is not None and self.metric is None:
                raise ValueError(f"{name} needs metric, the name of what it looks at")
        if self.end_date is not None:
            _moment(self.end_date)

    @classmethod
    def from_json(cls, parameters_json: Mapping[str, Any]) -> RoundPolicy:
        """The policy of these parameters. Raises InvalidParameter."""
        parameters = parameters_of(cls)
        if not isinstance(parameters_json, Mapping):
            raise InvalidParameter(
                f"the round policy must be an object; found {parameters_json!r:.80}", kind="round_policy"
            )
        values = {}
        for name, value in parameters_json.items():
            if name not in parameters:
                message = f"round policy: {name!r:.80} is unknown; known are {', '.join(parameters)}"
                raise InvalidParameter(message, kind="round_policy", parameter=name, known=list(parameters))
            try:
                values[name] = parameters[name].accept(value)
            except ValueError as error:
                message = f"round policy: {name!r} {error}"
                raise InvalidParameter(message, kind="round_policy", parameter=name) from None
        try:
            return cls(**values)
        except ValueError as error:
            named = str(error).partition(" ")[0]
            raise InvalidParameter(f"round policy: {error}", kind="round_policy", parameter=named) from error

    def to_json(self) -> dict[str, Any]:
        """The parameters that differ from the defaults."""
        defaults = asdict(RoundPolicy())
        return {name: value for name, value in asdict(self).items() if value != defaults[name]}

    @property
    def cohort_size(self) -> int | None:
        """How many clients to ask, ⌈over_selection · goal⌉; None without a goal."""
        return None if self.goal is None else math.ceil(round(self.goal * self.over_selection, 9))

    def verdict(self, answers: Answers, *, min_updates: int) -> Verdict:
        """Judge a round that is this far: close it, wait, or say that it missed its quorum.

        min_updates: what the strategy needs.
        """
        least = max(self.min_updates, min_updates)
        enough = answers.num_updates >= least and self._organisations_answered(answers)
        if enough and self._is_complete(answers):
            return "close"
        if not answers.deadline_passed:
            return "wait"
        return "close" if enough and answers.num_updates >= (self.quorum or 1) else "quorum_not_met"

    def end_reason(
        self, *, num_aggregates: int, values: Sequence[float | None], now: datetime
    ) -> EndReason | None:
        """Why the experiment is over after so many aggregates; None when it is not.

        values: the metric after each round, oldest first; None where nobody reported it.
        """
        if self.num_rounds is not None and num_aggregates >= self.num_rounds:
            return "num_rounds"
        if self.end_date is not None and now >= _moment(self.end_date):
            return "end_date"
        sign = 1.0 if self.metric_better == "higher" else -1.0
        known = [sign * value for value in values if value is not None]
        if self.target is not None and known and known[-1] >= sign * self.target:
            return "target_metric"
        if (
            self.patience is not None
            and _rounds_without_improvement(known, self.min_improvement) >= self.patience
        ):
            return "no_improvement"
        return None

    def _is_complete(self, answers: Answers) -> bool:
        goal = self.goal
        if self.max_updates is not None and answers.num_updates >= self.max_updates:
            return True
        if answers.num_asked is not None and answers.num_updates >= answers.num_asked:
            return True
        return answers.requirement_met if goal is None else answers.num_updates >= goal

    def _organisations_answered(self, answers: Answers) -> bool:
        if self.quorum_organisations == 0:
            return True
        answered = [
            name
            for name, count in answers.by_organisation.items()
            if name and count >= self.quorum_per_organisation
        ]
        return len(answered) >= self.quorum_organisations


def _moment(text: str) -> datetime:
    try:
        parsed = datetime.fromisoformat(text)
        if parsed.tzinfo is not None:
            return parsed.astimezone(UTC)
    except (ValueError, OverflowError):  # an offset may lead out of the years 1 to 9999
        pass
    raise ValueError(f"end_date must be ISO 8601 with a time zone (2027-01-31T12:00:00Z); found {text!r:.60}")


def _rounds_without_improvement(values: Sequence[float], least: float) -> int:
    best, since = -math.inf, 0
    for value in values:
        if value > best + least or best == -math.inf:
            best, since = max(best, value), 0
        else:
            since += 1
    return since
