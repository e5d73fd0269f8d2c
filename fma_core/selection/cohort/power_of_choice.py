"""Clients that the model serves worst, of a few at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from fma_core.parameters import Bounds
from fma_core.selection.cohort.draw import draw_weighted
from fma_core.selection.cohort.facts import example_weights, facts
from fma_core.selection.cohort.selector import Choice, Pool, Selector, selectors
from fma_core.selection.refusal import Refusal


@selectors.register("power_of_choice")
@dataclass(frozen=True)
class PowerOfChoice(Selector):
    """Of d clients, drawn without replacement in proportion to their examples, those with the largest losses.

    It is the paper's π_rpow-d: the loss is the one that a client reported last, that of a client which never did is
    infinite, and equal losses are parted by lot. d is at least the number of wanted clients.
    """

    source: ClassVar[str] = "Cho et al. 2020, arXiv:2010.01243 (π_rpow-d)"

    d: Annotated[
        int | None, Bounds(ge=1), "how many candidates are drawn; null: twice as many as are wanted"
    ] = None

    def choose(self, pool: Pool, rng: np.random.Generator) -> Choice:
        m = pool.num_wanted
        d = 2 * m if self.d is None else max(self.d, m)
        drawn = draw_weighted(example_weights(pool.candidates), d, rng)
        losses = facts([pool.candidates[index] for index in drawn], "loss")
        losses[np.isnan(losses)] = np.inf
        order = drawn[np.lexsort((rng.random(len(losses)), -losses))]
        refusal = Refusal("smaller_loss", "the client was drawn, but others had larger losses")
        return Choice(
            frozenset(pool.candidates[index].client for index in order[:m]),
            {pool.candidates[index].client: refusal for index in order[m:]},
        )
