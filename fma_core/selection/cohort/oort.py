"""The selector of the clients that help the model most in the time they take.

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

# The percentile at which the authors' program starts its preferred duration.
PREFERRED_PERCENTILE = 30.0


@selectors.register("oort")
@dataclass(frozen=True)
class Oort(Selector):
    """Mostly clients of high utility, |B| √(mean loss²), lower for slow ones; the others are new clients.

    Utilities are clipped at a percentile of all utilities, grow with the rounds since the client was chosen, and shrink
    by (T / t)^alpha for a client whose time t was longer than T. To choose k clients, those with at least `cutoff`
    times the k-th largest utility are drawn in proportion to it. A share of epsilon goes to clients whose utility is
    unknown, drawn in proportion to their upload speed. That share is rounded at random, so that small rounds explore
    too. A client of unknown utility is not new once the rule has rejected an update of it: it has the median utility.

    >>> from fma_core.selection import Candidate, select
    >>> useful = Candidate("useful", num_examples=100, loss_rms=2.0, rounds_since_turn=1)
    >>> trained = Candidate("trained", num_examples=100, loss_rms=0.1, rounds_since_turn=1)
    >>> selector = Oort(epsilon=0.0, epsilon_min=0.0)
    >>> select([useful, trained], selector=selector, num=1, seed=0, round_number=2).chosen
    ('useful',)
    """

    source: ClassVar[str] = "Lai et al. 2021 (Oort), arXiv:2010.06081, equation 1 and algorithm 1"

    epsilon: Annotated[float, Bounds(ge=0, le=1), "the share of new clients in the first round"] = 0.9
    epsilon_decay: Annotated[float, Bounds(gt=0, le=1), "the factor of that share from round to round"] = 0.98
    epsilon_min: Annotated[float, Bounds(ge=0, le=1), "the smallest share of new clients"] = 0.2
    alpha: Annotated[float, Bounds(ge=0, le=100), "how strongly slow clients lose utility"] = 2.0
    cutoff: Annotated[float, Bounds(ge=0, le=1), "c: how near to the best a client must be to be drawn"] = (
        0.95
    )
    clip_percentile: Annotated[
        float, Bounds(gt=0, le=100), "the percentile at which utilities are clipped"
    ] = 95.0
    preferred_s: Annotated[
        float | None, Bounds(gt=0), "T: a longer time is slow; null: the 30th percentile of all times"
    ] = None
    pacer_step_s: Annotated[float, Bounds(ge=0), "Δ: the growth of T when utility falls; 0: none"] = 0.0
    pacer_window: Annotated[int, Bounds(ge=1), "W: the number of rounds to compare with as many before"] = 20
    max_turns: Annotated[
        int | None, Bounds(ge=1), "the largest number of turns of a client; null: any number"
    ] = None
    normalise: Annotated[
        bool, "whether to scale utilities to 0 to 1 before waiting counts, as the authors' program does"
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
        """The share ε of new clients in a round."""
        return max(self.epsilon_min, self.epsilon * self.epsilon_decay ** (round_number - 1))

    def utilities(self, pool: Pool) -> Float64:
        """The utility of every candidate; NaN where it is unknown. A mean loss replaces a missing root mean square."""
        losses = facts(pool.candidates, "loss_rms")
        losses = np.where(np.isnan(losses), facts(pool.candidates, "loss"), losses)
        utility = facts(pool.candidates, "num_examples") * np.abs(losses)
        known = utility[~np.isnan(utility)]
        if not known.size:
            return utility
        rejected = np.array([each.times_rejected > 0 for each in pool.candidates])
        utility[np.isnan(utility) & rejected] = np.median(known)
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
        slowed: Float64 = utility * slowness
        return slowed

    def preferred(self, seconds: Float64, past: Sequence[PastRound]) -> float:
        """The preferred time T. The pacer lengthens it whenever W rounds had less utility than the W rounds before.

        The utility of a round that is over is its mean loss times the number of its answers that were used, because
        the reports of single clients are not kept. Windows that contain a round without a loss are not compared.
        """
        known = seconds[~np.isnan(seconds)]
        preferred = self.preferred_s
        if preferred is None:
            preferred = float(np.percentile(known, PREFERRED_PERCENTILE)) if known.size else np.inf
        window = self.pacer_window
        if not self.pacer_step_s or len(past) < 2 * window:
            return preferred
        gained = np.array(
            [each.metrics.get("loss", np.nan) * (len(each.answered) - len(each.rejected)) for each in past]
        )
        sums = np.convolve(gained, np.ones(window), "valid")  # of each W rounds in a row
        return preferred + self.pacer_step_s * int(np.count_nonzero(sums[:-window] > sums[window:]))

    def admitted(self, utility: Float64, num: int) -> Indices:
        """The clients to draw from: those with at least `cutoff` times the num-th largest utility."""
        if num < 1:
            return np.empty(0, np.intp)
        least = np.sort(utility)[-num]
        return np.flatnonzero(utility >= self.cutoff * least)
