"""The selector of the clients with the largest losses among a few random ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from fma_core.parameters import Bounds
from fma_core.selection.cohort.draw import draw_weighted
from fma_core.selection.cohort.facts import Float64, assume_median, example_weights, facts
from fma_core.selection.cohort.selector import Choice, Pool, Selector, selectors
from fma_core.selection.refusal import Refusal


@selectors.register("power_of_choice")
@dataclass(frozen=True)
class PowerOfChoice(Selector):
    """The clients with the largest losses among d, which are drawn without replacement in proportion to their examples.

    It is the paper's π_rpow-d: the loss is the one that a client reported last, with an update that was used. A client
    that never reported one counts as infinite; if the rule rejected its updates, like the median of the others. Equal
    losses are ordered at random. d is at least the number of wanted clients.

    >>> from fma_core.selection import Candidate, select
    >>> clients = [Candidate("good", loss=0.1), Candidate("bad", loss=2.0)]
    >>> select(clients, selector=PowerOfChoice(d=2), num=1, seed=0, round_number=1).chosen
    ('bad',)
    """

    source: ClassVar[str] = "Cho et al. 2020, arXiv:2010.01243 (π_rpow-d)"

    d: Annotated[
        int | None, Bounds(ge=1), "the number of candidates to draw; null: twice as many as are wanted"
    ] = None

    def choose(self, pool: Pool, rng: np.random.Generator) -> Choice:
        m = pool.num_wanted
        d = 2 * m if self.d is None else max(self.d, m)
        drawn = draw_weighted(example_weights(pool.candidates), d, rng)
        losses = self.losses(pool)[drawn]
        order = drawn[np.lexsort((rng.random(len(losses)), -losses))]
        refusal = Refusal("smaller_loss", "the client was drawn, but others had larger losses")
        return Choice(
            frozenset(pool.candidates[index].client for index in order[:m]),
            {pool.candidates[index].client: refusal for index in order[m:]},
        )

    def losses(self, pool: Pool) -> Float64:
        """The loss of every candidate, by which they are ordered."""
        losses = facts(pool.candidates, "loss")
        # Infinite, the updates that a rule rejects would have their clients chosen again and again.
        rejected = np.array([each.times_rejected > 0 for each in pool.candidates])
        otherwise: Float64 = np.where(rejected, assume_median(losses, 0.0), np.inf)
        return np.where(np.isnan(losses), otherwise, losses)
