"""The life of a round: which states there are, and what comes next.

    collecting ──► aggregating ──► published
        │            ▲ │  └──────► failed
        ├──► failed  └─┘ again, under a new lease
        └──► cancelled

`next_step` decides for an open (collecting) round. The first line that fits counts:

    | the open round                                | what comes next            |
    |-----------------------------------------------|----------------------------|
    | belongs to an experiment that is over         | End(reason)                |
    | belongs to an experiment that is not running  | Wait                       |
    | has not started: the one before is aggregated | Wait                       |
    | has not started, and enough clients may be    | Start                      |
    | asked                                         |                            |
    | has all that it waits for                     | Close                      |
    | missed its quorum, and may be opened again    | Reopen                     |
    | missed its quorum                             | Fail                       |
    | otherwise                                     | Wait                       |

Pure decisions, so that a server and `fma_core.simulate` play the same rounds: each brings its facts, and carries out
the step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from fma_core.rounds.closing import RoundFacts, RoundRules, missing_of, verdict_of
from fma_core.rounds.cohorts import Cohort, draw_cohort, num_needed
from fma_core.selection import Candidate, Filter, PastRound, Selector

# From which state a round may move to which. A retry stays in `aggregating`: the next round is collecting already.
TRANSITIONS: Mapping[str, frozenset[str]] = {
    "collecting": frozenset({"aggregating", "cancelled", "failed"}),
    "aggregating": frozenset({"aggregating", "published", "failed"}),
    "published": frozenset(),
    "cancelled": frozenset(),
    "failed": frozenset(),
}


@dataclass(frozen=True, slots=True)
class Wait:
    """Stay in this state.

    reason: what a round waits for that has not started, or that lacks a client of its rule.
    cohort: the draw that found too few clients.
    is_complete: whether the answers are enough, so that it will close when it goes on.
    """

    reason: str = ""
    cohort: Cohort | None = None
    is_complete: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """Let the time of the round begin. cohort: the clients to ask; None where every client may answer."""

    deadline_s: float | None
    cohort: Cohort | None = None


@dataclass(frozen=True, slots=True)
class Close:
    """Aggregate the updates that have come."""


@dataclass(frozen=True, slots=True)
class Reopen:
    """Give the round more time, and more clients where it has a cohort; its updates and its clients stay."""


@dataclass(frozen=True, slots=True)
class Fail:
    """End the round without an aggregate, and the experiment with it. code: why, as a stable name; detail: in words."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class End:
    """End the experiment, and its open round with it. reason: the round policy's, such as "num_rounds"."""

    reason: str


Step = Wait | Start | Close | Reopen | Fail | End


class Rules(Protocol):
    """The parts of a configuration that decide the life of its rounds. Each may be built only when it is asked for."""

    @property
    def closing(self) -> RoundRules: ...
    @property
    def chooses_clients(self) -> bool:
        """Whether a round has a cohort; without, every registered client may answer."""

    @property
    def filters(self) -> Sequence[Filter]: ...
    @property
    def selector(self) -> Selector: ...
    @property
    def seed(self) -> int: ...


class Facts(Protocol):
    """The state of an open round and its experiment. Each may be looked up only when it is asked for."""

    @property
    def number(self) -> int: ...
    @property
    def is_running(self) -> bool:
        """Whether the experiment runs: it is neither paused nor ended."""

    @property
    def is_started(self) -> bool: ...
    @property
    def is_aggregating(self) -> bool:
        """Whether the round before is being aggregated."""

    @property
    def num_clients(self) -> int:
        """The number of clients registered."""

    @property
    def num_updates(self) -> int:
        """The number of updates that count."""

    @property
    def num_reopenings(self) -> int: ...
    @property
    def num_draws(self) -> int:
        """How often clients were drawn for the round; each draw has its own randomness."""

    def end_reason(self) -> str | None:
        """Why the policy ends the experiment; None while it does not, or nothing has happened that could."""

    def progress(self) -> RoundFacts:
        """The answers to the round so far."""

    def candidates(self) -> Iterable[Candidate]: ...
    def past(self, limit: int | None) -> Sequence[PastRound]:
        """The rounds before this one; the `limit` newest are enough."""

    def asked(self) -> set[str]:
        """The clients that were chosen for the round before it was opened again, and can still answer."""


def next_step(rules: Rules, facts: Facts) -> Step:
    """Decide what comes next for an open round: the table of this module, line by line.

    Raises InvalidPart and InvalidStrategy when a part cannot be built, and what a plugin raises.
    """
    reason = facts.end_reason()
    if reason is not None:
        return End(reason)
    if not facts.is_running:
        return Wait(is_complete=_is_complete(rules, facts))
    if facts.is_started:
        return _after_start(rules, facts)
    step = _before_start(rules, facts)
    # Late updates of the round before may be enough for one that finds nobody to ask.
    if isinstance(step, Wait) and _is_complete(rules, facts):
        return replace(step, is_complete=True) if facts.is_aggregating else Close()
    return step


def _before_start(rules: Rules, facts: Facts) -> Step:
    if facts.is_aggregating:
        return Wait("the round before it, which is being aggregated")
    policy = rules.closing.policy
    needed = num_needed(policy, rules.closing.strategy)
    if facts.num_clients < needed:
        return Wait(f"clients to register: {facts.num_clients} of {needed}")
    if not rules.chooses_clients:
        return Start(policy.deadline_s)
    selector = rules.selector
    cohort = draw_cohort(
        facts.candidates(),
        filters=rules.filters,
        selector=selector,
        num_needed=needed,
        num_wanted=policy.cohort_size,
        seed=rules.seed,
        round_number=facts.number,
        past=lambda: facts.past(selector.num_past),
        asked=facts.asked(),
        num_draws=facts.num_draws,
    )
    if len(cohort.chosen) < needed:
        return Wait(f"clients that may be asked: {len(cohort.chosen)} of {needed}", cohort)
    return Start(policy.deadline_s, cohort)


def _is_complete(rules: Rules, facts: Facts) -> bool:
    return facts.num_updates > 0 and verdict_of(rules.closing, facts.progress()) == "close"


def _after_start(rules: Rules, facts: Facts) -> Step:
    progress = facts.progress()
    verdict = verdict_of(rules.closing, progress)
    if verdict == "close":
        return Close()
    if verdict == "wait":
        return Wait(missing_of(rules.closing, progress))
    policy = rules.closing.policy
    most = policy.max_reopenings
    if policy.on_failed_quorum == "reopen" and (most is None or facts.num_reopenings < most):
        return Reopen()
    missing = missing_of(rules.closing, progress)
    return Fail(
        "quorum_not_met",
        f"{progress.num_updates} updates at its deadline are not enough"
        + (f"; it lacks {missing}" if missing else ""),
    )
