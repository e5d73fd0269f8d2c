"""FLTrust: an update counts as far as it points in the direction of a trusted one.

Source: Cao et al. 2021, arXiv:2012.13995, algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from fma_core.aggregation.aggregators.aggregator import (
    Aggregator,
    Block,
    Float64,
    Rows,
    RowWeights,
    aggregators,
)
from fma_core.aggregation.aggregators.distances import too_far_apart
from fma_core.errors import NoUpdates


@dataclass(frozen=True)
class Trust:
    """The step is Σ weights[i] · row i; root: the trusted row, which is the reference."""

    weights: Float64
    root: int


@aggregators.register("fltrust")
@dataclass(frozen=True)
class FLTrust(Aggregator[Trust]):
    """The mean of the updates, scaled to the trusted one's norm and weighted by the cosine of their angle with it.

    Updates at a right angle or more count for nothing. The trusted update is the reference and is not part of the mean.
    When no update counts, the step is zero.

    >>> import numpy as np
    >>> from fma_core.in_memory import Update, fold_arrays
    >>> trusted = Update({"w": np.array([1.0, 0.0])}, client="clinic")
    >>> long, opposite = Update({"w": np.array([9.0, 0.0])}), Update({"w": np.array([-9.0, 0.0])})
    >>> fold_arrays(FLTrust(root_client="clinic"), [trusted, long, opposite])["w"]
    array([1., 0.])
    """

    source: ClassVar[str] = "Cao et al. 2021, arXiv:2012.13995"
    minimum: ClassVar[str] = "2, the trusted one among them"
    takes_mixed_rows: ClassVar[bool] = False

    root_client: Annotated[str, "the client whose update is trusted, trained on clean data"]

    @property
    def min_updates(self) -> int:
        return 2

    @property
    def required_clients(self) -> tuple[str, ...]:
        return (self.root_client,)

    def measure(self, rows: Rows) -> Trust:
        is_root = np.array([client == self.root_client for client in rows.clients])
        if not is_root.any():
            raise NoUpdates(
                f"fltrust needs an update of its root client, {self.root_client!r}", found=0, expected=1
            )
        # The last update of several: it was trained from the newest model.
        root = int(np.flatnonzero(is_root)[-1])
        gram = rows.gram()
        norms = np.sqrt(np.diagonal(gram))
        if np.isinf(norms[root]):
            raise too_far_apart()
        takes_part = ~is_root & np.isfinite(norms) & (norms > 0)
        weights = np.zeros(rows.num_rows)
        if norms[root] == 0 or not takes_part.any():
            return Trust(weights, root)
        cosines = gram[takes_part, root] / norms[takes_part] / norms[root]
        trust = np.clip(cosines, 0, 1)
        total = np.add.reduce(trust)
        if total > 0:
            weights[takes_part] = trust / total * (norms[root] / norms[takes_part])
        return Trust(weights, root)

    def combine(self, block: Block, decision: Trust) -> Float64:
        return block.weighted_sum(decision.weights)

    def row_weights(self, decision: Trust, num_rows: int) -> RowWeights:
        is_root = np.arange(num_rows) == decision.root
        return RowWeights(decision.weights, is_rejected=(decision.weights == 0) & ~is_root)
