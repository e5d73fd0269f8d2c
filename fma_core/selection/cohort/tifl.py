"""The selector of clients of one speed at a time.

Source: Chai et al. 2020, arXiv:2001.09249, algorithm 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from fma_core.parameters import Bounds
from fma_core.selection.candidate import Candidate, PastRound
from fma_core.selection.cohort.draw import draw
from fma_core.selection.cohort.facts import assume_median, positive_facts
from fma_core.selection.cohort.selector import Choice, Pool, Selector, selectors
from fma_core.selection.refusal import Refusal


@selectors.register("tifl")
@dataclass(frozen=True)
class TiFL(Selector):
    """Random clients of one tier; tiers are groups of equal size, by the time of a client's last round.

    At first all tiers are equally likely. Every `interval` rounds, unless the tier of the last round has improved,
    worse tiers become likelier: the worst of n tiers is n times as likely as the best. `credits` bounds the turns of
    each tier, until no tier has a turn left. All this follows from the rounds that are over: a round belongs to the
    tier that most of its clients are in now, and its metric is the metric of that tier until a later round. The paper
    evaluates each tier on separate data instead. Clients without a time count like the median of the others.

    >>> from fma_core.selection import Candidate, select
    >>> clients = [Candidate("a", round_s=1.0), Candidate("b", round_s=2.0), Candidate("c", round_s=90.0)]
    >>> select(clients, selector=TiFL(tiers=1, max_round_s=10), num=3, seed=0, round_number=1).chosen
    ('a', 'b')
    """

    source: ClassVar[str] = "Chai et al. 2020 (TiFL), arXiv:2001.09249, algorithm 2"

    tiers: Annotated[int, Bounds(ge=1), "the number of tiers"] = 5
    interval: Annotated[int, Bounds(ge=1), "I: the number of rounds after which probabilities may change"] = (
        10
    )
    credits: Annotated[
        tuple[int, ...],
        Bounds(ge=0),
        "the number of turns of each tier, the fastest first; empty: any number",
    ] = ()
    max_round_s: Annotated[
        float | None, Bounds(gt=0), "T_max: slower clients are left out; null: no bound"
    ] = None
    metric: Annotated[str, "the training metric by which tiers are compared"] = "loss"
    lower_is_better: Annotated[bool, "whether a lower metric is better"] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.credits and len(self.credits) != self.tiers:
            raise ValueError(f"credits must be {self.tiers} numbers, one for each tier, or none")
        if self.credits and not any(self.credits):
            raise ValueError("credits must leave one tier a turn")

    @property
    def num_past(self) -> int | None:
        return None

    def choose(self, pool: Pool, rng: np.random.Generator) -> Choice:
        tier_of, refused = self.tier_of(pool.candidates)
        if not tier_of:
            return Choice(frozenset(), refused)
        num_tiers = 1 + max(tier_of.values())
        tier = self._draw_tier(num_tiers, self._turns(tier_of, pool.past), rng)
        members = [each.client for each in pool.candidates if tier_of.get(each.client) == tier]
        refused |= {
            client: Refusal(
                "other_tier",
                f"clients of tier {tier + 1} of {num_tiers} were asked, and this one is of tier {own + 1}",
            )
            for client, own in tier_of.items()
            if own != tier
        }
        drawn = draw(len(members), min(pool.num_wanted, len(members)), rng)
        return Choice(frozenset(members[index] for index in drawn), refused)

    def tier_of(self, candidates: Sequence[Candidate]) -> tuple[dict[str, int], dict[str, Refusal]]:
        """The tier of each client, 0 the fastest, and the refusals of clients that are too slow for all tiers."""
        seconds = assume_median(positive_facts(candidates, "round_s"), 0.0)
        too_slow = seconds > (np.inf if self.max_round_s is None else self.max_round_s)
        refusal = Refusal("too_slow", f"its last round must have taken at most {self.max_round_s} s")
        order = [int(index) for index in np.argsort(seconds, kind="stable") if not too_slow[index]]
        num_tiers = min(self.tiers, len(order)) or 1
        tiers = [part.tolist() for part in np.array_split(order, num_tiers)]
        return (
            {candidates[index].client: tier for tier, members in enumerate(tiers) for index in members},
            {candidates[index].client: refusal for index in np.flatnonzero(too_slow).tolist()},
        )

    def _draw_tier(
        self, num_tiers: int, turns: Sequence[tuple[int | None, float]], rng: np.random.Generator
    ) -> int:
        weights = self.weights(num_tiers, turns)
        credits = [*self.credits[:num_tiers]]
        for tier, _ in turns:
            if credits and tier is not None:
                credits[tier] -= 1
        if any(left > 0 for left in credits):
            weights = [weight * (left > 0) for weight, left in zip(weights, credits, strict=True)]
        edges = np.cumsum(weights)
        return int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))

    def weights(self, num_tiers: int, turns: Sequence[tuple[int | None, float]]) -> list[int]:
        """NewProbs, not normalised; turns: the tier of each round, and its metric (NaN: none)."""
        weights = [1] * num_tiers
        worth: list[float] = [-np.inf] * num_tiers  # A_t, as far as it is known
        before = list(worth)  # A_t at the last r that I divides
        for r, (tier, metric) in enumerate(turns, start=1):
            if tier is not None and np.isfinite(metric):
                worth[tier] = -metric if self.lower_is_better else metric
            if r % self.interval == 0:
                if tier is not None and -np.inf < worth[tier] <= before[tier]:
                    weights = _worst_first(worth)
                before = list(worth)
        return weights

    def _turns(self, tier_of: dict[str, int], past: Sequence[PastRound]) -> list[tuple[int | None, float]]:
        return [(_tier_of_round(tier_of, each), each.metrics.get(self.metric, np.nan)) for each in past]


def _tier_of_round(tier_of: dict[str, int], played: PastRound) -> int | None:
    """The tier that most clients of a round are in now, of equals the faster one; None when no client is known."""
    known = [tier_of[client] for client in played.chosen if client in tier_of]
    return int(np.bincount(known).argmax()) if known else None


def _worst_first(worth: Sequence[float]) -> list[int]:
    """ChangeProbs, which the paper does not define: n for the worst of n tiers, and one less for each better one."""
    order = sorted(range(len(worth)), key=lambda tier: worth[tier])
    weights = [0] * len(worth)
    for rank, tier in enumerate(order):
        weights[tier] = len(worth) - rank
    return weights
