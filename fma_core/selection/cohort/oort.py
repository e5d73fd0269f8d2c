"""Clients that teach the model most in the time they take.

Source: Lai et al. 2021 (OSDI), arXiv:2010.06081, equation 1 and algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from fma_core.parameters import Bounds
from fma_core.selection.candidate import PastRound
from fma_core.selection.cohort.draw import Indices, draw_weighted
from fma_core.selection.cohort.facts import Float64, assume_median, facts, positive_facts
from fma_core.selection.cohort.selector import Choice, Pool, Selector, selectors
from fma_core.selection.refusal import Refusal

# Where the authors' program starts its preferred duration.
PREFERRED_PERCENTILE = 30.0


@selectors.register("oort")
@dataclass(frozen=True)
class Oort(Selector):
    """Mostly clients of high utility, |B| √(mean loss²), less for those that are slow; the others are new ones.

    Utilities are cut off at a percentile of them all, grow with the rounds since the client was chosen, and shrink by
    (T / t)^alpha for a client that took t, longer than T. Those with more than `cutoff` times the utility of the last
    one that would be in are drawn in proportion to it. A share of epsilon goes to clients whose utility nobody knows,
    drawn in proportion to their upload speed. That share is rounded by lot, so that small rounds explore too.
    """

    source: ClassVar[str] = "Lai et al. 2021 (Oort), arXiv:2010.06081, equation 1 and algorithm 1"

    epsilon: Annotated[float, Bounds(ge=0, le=1), "the share of new clients in the first round"] = 0.9
    epsilon_decay: Annotated[float, Bounds(gt=0, le=1), "its factor from round to round"] = 0.98
    epsilon_min: Annotated[float, Bounds(ge=0, le=1), "what it never falls below"] = 0.2
    alpha: Annotated[float, Bounds(ge=0, le=100), "how much slow clients lose"] = 2.0
    cutoff: Annotated[float, Bounds(ge=0, le=1), "c: how near to the best a client must be"] = 0.95
    clip_percentile: Annotated[float, Bounds(gt=0, le=100), "the largest utility that counts"] = 95.0
    preferred_s: Annotated[
        float | None, Bounds(gt=0), "T: from when on a client is slow; null: the 30th percentile of all"
    ] = None
    pacer_step_s: Annotated[float, Bounds(ge=0), "Δ: what T grows by when utility falls; 0: never"] = 0.0
    pacer_window: Annotated[int, Bounds(ge=1), "W: how many rounds are compared with as many before"] = 20
    max_turns: Annotated[
        int | None, Bounds(ge=1), "how often a client may be chosen in all; null: any number of times"
    ] = None
    normalise: Annotated[
        bool, "whether utilities are brought to 0 to 1 before waiting counts, as the authors' program does"
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epsilon_min > self.epsilon:
            raise ValueError(f"epsilon_min must be at most epsilon, {self.epsilon}, found {self.epsilon_min}")

    @property
    def num_past(self) -> int | None:
        return None if self.pacer_step_s else 0

    def choose(self, pool: Pool, rng: np.random.Generator) -> Choice:
        utility = self.utilities(pool)
        may = np.array(
            [self.max_turns is None or each.times_chosen < self.max_turns for each in pool.candidates]
        )
        explored = np.flatnonzero(may & ~np.isnan(utility))
        new = np.flatnonzero(may & np.isnan(utility))
        num = min(pool.num_wanted, len(explored) + len(new))
        share = int(self.exploration(pool.round_number) * num + rng.random())
        num_new = min(len(new), max(share, num - len(explored)))
        admitted = explored[self.admitted(utility[explored], num - num_new)]
        speeds = assume_median(positive_facts([pool.candidates[index] for index in new], "upload_mbps"), 1.0)
        drawn = [
            *admitted[draw_weighted(utility[admitted], num - num_new, rng)],
            *new[draw_weighted(speeds, num_new, rng)],
        ]
        turns = Refusal("too_many_turns", f"the client was chosen {self.max_turns} times, which is the most")
        return Choice(
            frozenset(pool.candidates[index].client for index in drawn),
            {pool.candidates[index].client: turns for index in np.flatnonzero(~may)},
        )

    def exploration(self, round_number: int) -> float:
        """ε of a round."""
        return max(self.epsilon_min, self.epsilon * self.epsilon_decay ** (round_number - 1))

    def utilities(self, pool: Pool) -> Float64:
        """Util of every candidate; NaN where it is unknown. A mean loss stands in for the root mean square."""
        losses = facts(pool.candidates, "loss_rms")
        losses = np.where(np.isnan(losses), facts(pool.candidates, "loss"), losses)
        utility = facts(pool.candidates, "num_examples") * np.abs(losses)
        known = utility[~np.isnan(utility)]
        if not known.size:
            return utility
        utility = np.minimum(utility, np.percentile(known, self.clip_percentile))
        if self.normalise:
            least, most = float(known.min()), float(np.nanmax(utility))
            utility = (utility - least) / ((most - least) or 1.0)
        since = facts(pool.candidates, "rounds_since_turn")
        last_turn = np.maximum(pool.round_number - np.where(np.isnan(since), np.inf, since), 1.0)
        utility = utility + np.sqrt(0.1 * np.log(max(pool.round_number, 1)) / last_turn)
        seconds = positive_facts(pool.candidates, "round_s")
        preferred = self.preferred(seconds, pool.past)
        # fmin takes the 1 where no time is known.
        slowness: Float64 = np.fmin(1.0, preferred / seconds) ** self.alpha
        found: Float64 = utility * slowness
        return found

    def preferred(self, seconds: Float64, past: Sequence[PastRound]) -> float:
        """T. The pacer lengthens it in each round before which the utility of W rounds was less than of the W before.

        The utility of a round that is over is taken for its mean loss times the number of its answers, because what
        single clients reported then is not kept; a round without a loss ends what is compared.
        """
        known = seconds[~np.isnan(seconds)]
        preferred = self.preferred_s
        if preferred is None:
            preferred = float(np.percentile(known, PREFERRED_PERCENTILE)) if known.size else np.inf
        window = self.pacer_window
        if not self.pacer_step_s or len(past) < 2 * window:
            return preferred
        gained = np.array([each.metrics.get("loss", np.nan) * len(each.answered) for each in past])
        sums = np.convolve(gained, np.ones(window), "valid")  # of each W rounds in a row
        return preferred + self.pacer_step_s * int(np.count_nonzero(sums[:-window] > sums[window:]))

    def admitted(self, utility: Float64, num: int) -> Indices:
        """The clients to draw `num` from: with at least `cutoff` times the num-th largest utility."""
        if num < 1:
            return np.empty(0, np.intp)
        least = np.sort(utility)[-num]
        return np.flatnonzero(utility >= self.cutoff * least)
