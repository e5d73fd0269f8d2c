"""The coordinate-wise median.

Source: Yin et al. 2018, arXiv:1803.01498, definition 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fma_core import kernels
from fma_core.aggregation.aggregators.aggregator import Aggregator, Block, Float64, aggregators


@aggregators.register("median")
@dataclass(frozen=True)
class Median(Aggregator[None]):
    """The median of each coordinate; for an even number of updates, the mean of the two middle values.

    It tolerates attackers that send fewer than half of the updates.

    >>> import numpy as np
    >>> from fma_core.in_memory import fold_arrays
    >>> updates = [{"w": np.array([value])} for value in (1.0, 2.0, 900.0)]
    >>> fold_arrays(Median(), updates)["w"]
    array([2.])
    """

    source: ClassVar[str] = "Yin et al. 2018, arXiv:1803.01498"
    needs_matrix: ClassVar[bool] = True
    is_translation_equivariant: ClassVar[bool] = True

    def combine(self, block: Block, decision: None) -> Float64:
        middle = kernels.middle_ranks(block.num_rows)
        return kernels.median_of_ordered(block.order_statistics(middle))
