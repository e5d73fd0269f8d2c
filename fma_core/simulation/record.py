"""A round that is over: as a row of the result, and as later selections know it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fma_core.engine import UpdateUse
from fma_core.metrics import merge
from fma_core.selection import PastRound, Refusal
from fma_core.simulation.open_round import OpenRound
from fma_core.simulation.simulated_round import Outcome, SimulatedRound


def row_of(
    current: OpenRound,
    outcome: Outcome,
    *,
    now_s: float,
    late: Iterable[str],
    sha256: str = "",
    stale: tuple[str, ...] = (),
    uses: Mapping[str, UpdateUse] | None = None,
    failure: Refusal | None = None,
    validation: Mapping[str, float] | None = None,
) -> SimulatedRound:
    updates = current.updates
    metrics = merge(
        (float(updates[client].num_examples), updates[client].metrics)
        for client, use in (uses or {}).items()
        if use.counts
    )
    return SimulatedRound(
        number=current.number,
        outcome=outcome,
        chosen=tuple(current.chosen),
        refused=current.refused,
        answered=tuple(updates),
        stale=stale,
        late=tuple(sorted(late)),
        dropped=tuple(sorted(current.dropped)),
        rejected=dict(sorted(current.rejected.items())),
        opened_s=current.opened_s,
        ended_s=now_s,
        num_reopenings=current.num_reopenings,
        sha256=sha256,
        failure=failure,
        uses=uses or {},
        metrics=metrics,
        validation=validation or {},
    )


def as_past(over: SimulatedRound, current: OpenRound) -> PastRound:
    # Where everyone may answer, only those were asked of whom something was heard.
    asked = over.answered if current.num_asked is None else over.chosen
    answered = sorted(set(asked) & set(over.answered))
    return PastRound(
        number=over.number,
        chosen=tuple(sorted(asked)),
        answered=tuple(answered),
        rejected=tuple(client for client in answered if client in over.uses and not over.uses[client].counts),
        seconds=over.ended_s - (current.opened_s if current.started_s is None else current.started_s),
        metrics=over.means,
    )
