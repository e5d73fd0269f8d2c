"""The mean of updates of bounded norm.

Source: Sun et al. 2019, arXiv:1911.07963, section 4.
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
from fma_core.aggregation.aggregators.distances import clip_factors, too_far_apart
from fma_core.parameters import Bounds


@aggregators.register("norm_bounded_mean")
@dataclass(frozen=True)
class NormBoundedMean(Aggregator[Float64]):
    """The plain mean of the updates, each scaled down to max_norm if it is longer.

    An update whose squared norm overflows float64 counts as one that changed nothing.

    >>> import numpy as np
    >>> from fma_core.in_memory import fold_arrays
    >>> updates = [{"w": np.array([1.0])}, {"w": np.array([900.0])}]
    >>> fold_arrays(NormBoundedMean(max_norm=3.0), updates, start={"w": np.array([0.0])})["w"]
    array([2.])
    """

    source: ClassVar[str] = "Sun et al. 2019, arXiv:1911.07963"

    max_norm: Annotated[
        float | None, Bounds(gt=0), "the largest L2 norm; null: the median of the updates' norms"
    ] = None

    def measure(self, rows: Rows) -> Float64:
        norms = np.sqrt(rows.squared_norms())
        bound = float(np.median(norms)) if self.max_norm is None else self.max_norm
        if np.isinf(bound):
            raise too_far_apart()
        return clip_factors(norms, bound)

    def combine(self, block: Block, decision: Float64) -> Float64:
        result = block.weighted_sum(decision)
        return np.divide(result, block.num_rows, out=result)

    def row_weights(self, decision: Float64, num_rows: int) -> RowWeights:
        return RowWeights(decision / num_rows, is_clipped=decision < 1)
