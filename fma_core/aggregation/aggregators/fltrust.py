"""FLTrust: updates count as far as they point where a trusted one does.

Source: Cao et al. 2021, arXiv:2012.13995, algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from fma_core.aggregation.aggregators.aggregator import Aggregator, Block, Float64, Rows, aggregators
from fma_core.aggregation.aggregators.distances import too_far_apart
from fma_core.errors import NoUpdates


@aggregators.register("fltrust")
@dataclass(frozen=True)
class FLTrust(Aggregator[Float64]):
    """The mean of the updates, scaled to the trusted one's norm and weighted by the cosine of their angle with it.

    Updates at a right angle or more count for nothing, and so does the trusted one itself: it is the measure. When none
    counts, the step is zero.
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

    def measure(self, rows: Rows) -> Float64:
        """The weights with which the rows make up the step."""
        is_root = np.array([client == self.root_client for client in rows.clients])
        if not is_root.any():
            raise NoUpdates(
                f"fltrust needs an update of its root client, {self.root_client!r}", found=0, expected=1
            )
        # Its last update, should there be several: a later one was trained from a newer model.
        root = int(np.flatnonzero(is_root)[-1])
        gram = rows.gram()
        norms = np.sqrt(np.diagonal(gram))
        if np.isinf(norms[root]):
            raise too_far_apart()
        takes_part = ~is_root & np.isfinite(norms) & (norms > 0)
        weights = np.zeros(rows.num_rows)
        if norms[root] == 0 or not takes_part.any():
            return weights
        cosines = gram[takes_part, root] / norms[takes_part] / norms[root]
        trust = np.clip(cosines, 0, 1)
        total = np.add.reduce(trust)
        if total > 0:
            weights[takes_part] = trust / total * (norms[root] / norms[takes_part])
        return weights

    def combine(self, block: Block, decision: Float64) -> Float64:
        return block.weighted_sum(decision)
