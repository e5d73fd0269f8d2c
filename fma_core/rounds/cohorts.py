"""The cohort of a round: drawn until there are enough clients in it.

Pure decisions, so that the server and `fma_core.simulate` ask the same clients.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fma_core.aggregation.strategy import Strategy
from fma_core.rounds.policy import RoundPolicy
from fma_core.selection import Candidate, Filter, PastRound, Refusal, Selector, screen, select

# A selector that decides by itself how many it takes (poisson) may take too few. Each draw has its own randomness.
MAX_DRAWS = 100


@dataclass(frozen=True)
class Cohort:
    """chosen: by name, with those that were asked before. num_draws: how often clients were drawn for the round."""

    chosen: tuple[str, ...]
    refused: Mapping[str, Refusal]
    num_draws: int


def num_needed(policy: RoundPolicy, strategy: Strategy) -> int:
    """How many clients there must be for a round to be worth starting."""
    return max(policy.goal or 1, policy.min_updates, strategy.min_updates)


def draw_cohort(
    candidates: Iterable[Candidate],
    *,
    filters: Sequence[Filter],
    selector: Selector,
    num_needed: int,
    num_wanted: int | None,
    seed: int,
    round_number: int,
    past: Callable[[], Sequence[PastRound]] = tuple,
    asked: Collection[str] = (),
    num_draws: int = 0,
) -> Cohort:
    """Choose the clients to ask; a round starts only when `chosen` are `num_needed` or more.

    num_wanted: `RoundPolicy.cohort_size`; None for all that the selector would take.
    past: gives the rounds before this one; not called when nobody is drawn.
    asked: who was chosen for the round before it was opened again; they stay chosen, and as many others come in.
    num_draws: how often clients were drawn for it before.
    """
    waiting = [candidate for candidate in candidates if candidate.client not in asked]
    eligible, refused = screen(waiting, filters)
    if len(eligible) < num_needed and not asked:
        return Cohort(tuple(candidate.client for candidate in eligible), refused, num_draws)
    known, draw = past(), num_draws
    while True:
        selection = select(
            waiting,
            filters=filters,
            selector=selector,
            num=num_wanted,
            seed=seed,
            round_number=round_number,
            past=known,
            draw=draw,
        )
        draw += 1
        if len(selection.chosen) + len(asked) >= num_needed or draw - num_draws == MAX_DRAWS:
            return Cohort(tuple(sorted({*selection.chosen, *asked})), selection.refused, draw)
