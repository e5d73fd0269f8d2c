"""The selection of a round: a pure function of candidates, configuration, seed and history."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fma_core.selection.candidate import Candidate, PastRound
from fma_core.selection.cohort.everyone import EVERYONE
from fma_core.selection.cohort.selector import Choice, Pool, Selector, selectors
from fma_core.selection.eligibility.filter import Filter, first_refusal
from fma_core.selection.refusal import Refusal


@dataclass(frozen=True)
class Selection:
    """The result of a selection: each candidate is chosen (sorted by name), or refused with a reason."""

    chosen: tuple[str, ...]
    refused: Mapping[str, Refusal]


def chooses_clients(selector: str | None, filters: Collection[object]) -> bool:
    """Whether a round has a cohort; without one, every client may answer.

    selector: its name.
    """
    return selector != EVERYONE or bool(filters)


def select(
    candidates: Iterable[Candidate],
    *,
    filters: Sequence[Filter] = (),
    selector: Selector,
    num: int | None,
    seed: int,
    round_number: int,
    past: Sequence[PastRound] = (),
    draw: int = 0,
) -> Selection:
    """Choose the clients to ask in a round, and give a reason for each of the others.

    num: how many clients are wanted; None for no bound. Selectors whose `takes_num` is False decide it themselves.
    seed: the model's, 0 or more. The same seed, round and facts give the same choice, whatever the order of the
    candidates.
    past: the rounds before this one; the selector's `num_past` newest are enough.
    draw: the number of earlier draws for this round; each draw has its own randomness.
    Raises ValueError when two candidates are the same client, or the selector breaks its contract.

    >>> from fma_core.selection import LeastRecentlyUsed, MinExamples
    >>> few, done = Candidate("few", num_examples=3), Candidate("done", num_examples=90, rounds_since_turn=1)
    >>> selector, filters = LeastRecentlyUsed(), [MinExamples(num=10)]
    >>> select([few, done, Candidate("new")], selector=selector, filters=filters, num=1, seed=0, round_number=2).chosen
    ('new',)
    """
    if num is not None and num < 1:
        raise ValueError(f"num must be at least 1, or None, found {num}")
    eligible, refused = screen(candidates, filters)
    if not eligible:
        return Selection((), refused)
    pool = Pool(eligible, num, round_number, _newest(past, selector.num_past))
    # PCG64 by name: default_rng may become another generator one day.
    rng = np.random.Generator(np.random.PCG64([seed, round_number, draw]))
    choice = selector.choose(pool, rng)
    _check(choice, pool, selector)
    generic = _generic_refusal(choice, pool, selector)
    for candidate in eligible:
        if candidate.client not in choice.chosen:
            refused[candidate.client] = choice.refused.get(candidate.client, generic)
    return Selection(tuple(sorted(choice.chosen)), dict(sorted(refused.items())))


def screen(
    candidates: Iterable[Candidate], filters: Sequence[Filter]
) -> tuple[tuple[Candidate, ...], dict[str, Refusal]]:
    """The eligible candidates, sorted by name, and the reasons against the others."""
    eligible: list[Candidate] = []
    refused: dict[str, Refusal] = {}
    previous: str | None = None
    for candidate in sorted(candidates, key=lambda each: each.client):
        if candidate.client == previous:
            raise ValueError(f"a client can be a candidate once, found {previous!r} twice")
        previous = candidate.client
        refusal = first_refusal(candidate, filters)
        if refusal is None:
            eligible.append(candidate)
        else:
            refused[candidate.client] = refusal
    return tuple(eligible), refused


def _newest(past: Sequence[PastRound], num: int | None) -> tuple[PastRound, ...]:
    ordered = sorted(past, key=lambda each: each.number)
    return tuple(ordered if num is None else ordered[max(0, len(ordered) - num) :])


def _check(choice: Choice, pool: Pool, selector: Selector) -> None:
    name = selectors.name_of(selector)
    if not choice.chosen <= {candidate.client for candidate in pool.candidates}:
        raise ValueError(f"selector {name!r} chose clients that are not eligible")
    if selector.takes_num and len(choice.chosen) > pool.num_wanted:
        raise ValueError(
            f"selector {name!r} chose {len(choice.chosen)} clients, {pool.num_wanted} are wanted"
        )


def _generic_refusal(choice: Choice, pool: Pool, selector: Selector) -> Refusal:
    chosen, eligible = len(choice.chosen), len(pool.candidates)
    sentence = (
        f"{selectors.name_of(selector)!r} chose {chosen} of {eligible} eligible clients, and not this one"
    )
    return Refusal("not_chosen", sentence)
