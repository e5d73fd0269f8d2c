"""A simulated experiment: the server's record and clock, in memory and in virtual time.

`fma_core.rounds.life.next_step` decides what comes next, as it does on the server; this carries it out. A client that
was chosen begins when the round starts, or when it has finished what it was training before; its answer arrives after
the seconds that it takes. An update that missed its round is admitted to the open one, or refused, as on the server
(late_updates, furthest_base_agg), and its client goes on with the open round unless it counts there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, assert_never

from fma_core import client_config
from fma_core.arrays.spec import Arrays, Spec
from fma_core.errors import AggregationError, FMAError, InvalidStrategy
from fma_core.rounds.life import Close, End, Fail, Reopen, Start, Wait, next_step
from fma_core.selection import Refusal
from fma_core.simulation.admission import refusal_of
from fma_core.simulation.client import SimulatedClient, Trained
from fma_core.simulation.configuration import Configuration
from fma_core.simulation.facts import SimulatedFacts
from fma_core.simulation.files import Files, Update
from fma_core.simulation.history import History
from fma_core.simulation.open_round import OpenRound, ties
from fma_core.simulation.progress import Progress, Watcher
from fma_core.simulation.record import as_past, row_of
from fma_core.simulation.result import Simulation
from fma_core.simulation.simulated_round import Outcome, SimulatedRound
from fma_core.simulation.timeline import Deadline, Timeline, Wake
from fma_core.simulation.training import train_all

# A round that is opened again for ever would never let a simulation end.
MAX_REOPENINGS = 1000
MAX_WAKES = 1000


@dataclass(frozen=True)
class Setting:
    """The task of a simulation. clients: by id, in the order of their ids."""

    configuration: Configuration
    clients: Mapping[str, SimulatedClient]
    num_rounds: int
    evaluate: Callable[[Arrays], Mapping[str, float]] | None
    executor: Executor | None
    progress: Watcher | None
    begins_on: datetime


class Experiment:
    def __init__(self, setting: Setting, files: Files, initial: Arrays | None) -> None:
        self._setting = setting
        self._configuration = setting.configuration
        self._strategy = setting.configuration.closing.strategy
        self._policy = setting.configuration.closing.policy
        self._clients = setting.clients
        self._files = files
        self._history = History(list(setting.clients.values()))
        self._timeline = Timeline()
        self._training: dict[str, Update] = {}
        self._over: list[SimulatedRound] = []
        self._num_wakes = 0
        self._now_s = 0.0
        self._end_reason = ""
        self._waits_for = ""
        self._settle(initial)
        self._weights = files.read_model()
        self._open = self._next_round()

    def run(self) -> Simulation:
        self._advance()
        while not self._end_reason:
            following = self._timeline.pop()
            if following is None:
                self._stall()
                break
            self._now_s, event = following
            if isinstance(event, Update):
                self._arrive(event)
            elif isinstance(event, Wake) or self._is_of_open_round(event):
                self._advance()
            if self._policy.end_date is not None and self._policy_reason() is not None:
                self._advance(may_end=True)
        return Simulation(
            rounds=tuple(self._over),
            arrays=self._weights,
            end_reason=self._end_reason,
            waits_for=self._waits_for,
            seed=self._configuration.seed,
            seconds=self._now_s,
        )

    def _is_of_open_round(self, deadline: Deadline) -> bool:
        return (deadline.round_number, deadline.num_reopenings) == (
            self._open.number,
            self._open.num_reopenings,
        )

    def _settle(self, initial: Arrays | None) -> None:
        if initial is not None:
            self._files.write_initial(initial)
        elif self._strategy.needs_start:
            raise InvalidStrategy(
                "this strategy needs weights to start from; give `initial`", field="aggregator"
            )
        if self._files.spec is not None:
            self._strategy.check_spec(self._files.spec)  # raises what the server refuses the model with

    def _next_round(self) -> OpenRound:
        number = len(self._over) + 1
        order = ties(len(self._clients), seed=self._configuration.seed, round_number=number)
        self._ties = dict(zip(self._clients, order, strict=True))
        self._num_wakes = 0
        return OpenRound(number, opened_s=self._now_s)

    # The steps of a round.

    def _advance(self, *, may_end: bool = False) -> None:
        """Let the open round, and those after it, go on as far as they can."""
        while not self._end_reason:
            step = next_step(self._configuration, self._facts(may_end=may_end))
            may_end = isinstance(step, Close)
            match step:
                case Wait():
                    self._wait(step)
                    return
                case Start():
                    self._start(step)
                case Close():
                    self._aggregate()
                case Reopen():
                    self._reopen()
                case Fail():
                    self._end_reason = step.code
                    self._finish("quorum_not_met")
                case End():
                    self._end_reason = step.reason
                case _:
                    assert_never(step)

    def _facts(self, *, may_end: bool) -> SimulatedFacts:
        return SimulatedFacts(
            current=self._open,
            clients=self._clients,
            history=self._history,
            has_start=self._files.has_model,
            now_s=self._now_s,
            reason=self._policy_reason() if may_end else None,
        )

    def _wait(self, step: Wait) -> None:
        current = self._open
        current.waits_for = step.reason
        if step.cohort is not None:
            current.num_draws = step.cohort.num_draws
            current.refused = step.cohort.refused
            self._wake_when_possible(step.cohort.refused.values())

    def _start(self, step: Start) -> None:
        current = self._open
        if step.cohort is None:
            current.chosen = dict.fromkeys(self._clients)
        else:
            fresh = set(step.cohort.chosen) - set(current.chosen)
            self._history.asked(fresh, round_number=current.number, now_s=self._now_s)
            current.num_draws = step.cohort.num_draws
            current.refused = step.cohort.refused
            current.chosen = dict.fromkeys(step.cohort.chosen)
            current.num_asked = len(step.cohort.chosen)
        current.waits_for = ""
        current.started_s = self._now_s
        if step.deadline_s is not None:
            current.deadline_s = self._now_s + step.deadline_s
            self._timeline.add(current.deadline_s, Deadline(current.number, current.num_reopenings))
        self._begin(current.chosen)

    def _reopen(self) -> None:
        if self._open.num_reopenings >= MAX_REOPENINGS:
            self._stall()
        else:
            self._open.reopen()

    def _wake_when_possible(self, refusals: Iterable[Refusal]) -> None:
        waits = [each.retry_after_s for each in refusals if each.retry_after_s is not None]
        self._num_wakes += 1
        if waits and self._num_wakes <= MAX_WAKES:
            # A moment that is no moment would be waited for over and over again.
            self._timeline.add(self._now_s + max(1e-3, min(waits)), Wake(self._open.number))

    # Training.

    def _begin(self, clients: Iterable[str]) -> None:
        """Let those of them train that are idle and have not begun or answered."""
        current = self._open
        idle = [
            client
            for client in clients
            if client not in self._training and client not in current.began and client not in current.updates
        ]
        current.began.update(idle)
        tasks = ((self._clients[client], self._config_of(self._clients[client])) for client in idle)
        for client, trained in train_all(tasks, self._weights, current.number, self._setting.executor):
            current.num_trained += 1
            update = self._received(client, trained)
            if update is not None:
                self._training[client.id] = update
                self._timeline.add(update.arrives_s, update, tie=self._ties[client.id])
            self._tell()

    def _config_of(self, client: SimulatedClient) -> dict[str, Any]:
        return client_config.resolve(
            self._configuration.client_config,
            self._configuration.client_config_overrides,
            round_number=self._open.number,
            client=client.id,
            tags=client.tags,
            strategy_config=self._strategy.aggregator.client_config,
        )

    def _received(self, client: SimulatedClient, trained: Trained | None) -> Update | None:
        """The update that is on its way to the server; None for a dropout, and for one that the server would refuse."""
        if trained is None:
            self._open.dropped.add(client.id)
            return None
        try:
            if self._files.spec is None:
                self._strategy.check_spec(Spec.of(trained.arrays))
            else:
                self._strategy.update_spec(self._files.spec).check(trained.arrays)
            self._strategy.check_metrics(trained.metrics)
            path = self._files.write_update(trained.arrays)
        except FMAError as error:
            self._open.rejected[client.id] = Refusal(error.code, error.message)
            return None
        except ValueError as error:
            self._open.rejected[client.id] = Refusal("invalid_value", str(error))
            return None
        return Update(
            client=client.id,
            round_number=self._open.number,
            base=self._files.num_aggregates,
            file=path,
            num_examples=trained.num_examples,
            metrics=dict(trained.metrics),
            began_s=self._now_s,
            seconds=trained.seconds,
        )

    # Accepting updates, as fma_django/updates does.

    def _arrive(self, update: Update) -> None:
        current = self._open
        del self._training[update.client]
        refusal = refusal_of(update, current, self._configuration, num_aggregates=self._files.num_aggregates)
        if refusal is None:
            current.count(update, organisation=self._clients[update.client].organisation)
            in_time = not self._configuration.chooses_clients or update.client in current.chosen
            self._history.answered(update, in_time=in_time)
        else:
            current.rejected[update.client] = refusal
            self._files.drop_updates([update])
        self._advance()
        if self._open.started_s is not None and not self._end_reason and update.client in self._open.chosen:
            self._begin([update.client])

    # Ending a round.

    def _aggregate(self) -> None:
        current = self._open
        updates = list(current.updates.values())
        base = self._files.num_aggregates
        try:
            folded = self._files.fold(
                updates,
                strategy=self._strategy,
                round_number=current.number,
                num_clients=len(self._clients),
            )
        except AggregationError as error:
            self._finish("failed", failure=Refusal(error.code, error.message))
        else:
            self._weights = self._files.read_model()
            for update, use in zip(updates, folded.uses, strict=True):
                self._history.judged(update, use)
            self._finish(
                "published",
                sha256=folded.weights.sha256,
                uses=dict(zip(current.updates, folded.uses, strict=True)),
                stale=tuple(each.client for each in updates if each.base != base),
                validation=self._validated(),
            )
        self._files.drop_updates(updates)
        self._files.drop_models({each.base for each in self._training.values()})
        if len(self._over) < self._setting.num_rounds:
            self._open = self._next_round()
        else:
            self._end_reason = self._policy_reason() or "rounds"

    def _validated(self) -> dict[str, float]:
        if self._setting.evaluate is None or self._weights is None:
            return {}
        return {name: float(value) for name, value in self._setting.evaluate(self._weights).items()}

    def _finish(self, outcome: Outcome, **facts: Any) -> None:
        """Write the open round down."""
        number = self._open.number
        late = [client for client, each in self._training.items() if each.round_number == number]
        over = row_of(self._open, outcome, now_s=self._now_s, late=late, **facts)
        self._over.append(over)
        self._history.past.append(as_past(over, self._open))
        self._tell(is_over=True)

    def _policy_reason(self) -> str | None:
        return self._policy.end_reason(
            num_aggregates=self._files.num_aggregates,
            values=[self._watched(each) for each in self._over if each.outcome == "published"],
            now=self._setting.begins_on + timedelta(seconds=self._now_s),
        )

    def _watched(self, each: SimulatedRound) -> float | None:
        values = each.validation if self._policy.metric_source == "validation" else each.means
        return values.get(self._policy.metric or "")

    def _stall(self) -> None:
        current = self._open
        self._end_reason = "stalled"
        self._waits_for = current.waits_for or (
            f"updates that nobody is going to send: round {current.number} has {len(current.updates)}, "
            f"{len(current.dropped)} clients dropped out, {len(current.rejected)} were refused"
        )
        self._finish("open")

    def _tell(self, *, is_over: bool = False) -> None:
        if self._setting.progress is None:
            return
        current = self._open
        last = self._over[-1] if self._over else None
        self._setting.progress(
            Progress(
                round_number=current.number,
                num_rounds=self._setting.num_rounds,
                num_trained=current.num_trained,
                num_asked=len(current.chosen),
                is_over=is_over,
                metrics={} if last is None else {**last.means, **last.validation},
            )
        )
