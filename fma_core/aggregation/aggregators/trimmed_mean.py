"""The coordinate-wise trimmed mean.

Source: Yin et al. 2018, arXiv:1803.01498, definition 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, ClassVar

from fma_core import kernels
from fma_core.aggregation.aggregators.aggregator import Aggregator, Block, Float64, aggregators
from fma_core.parameters import Bounds


@aggregators.register("trimmed_mean")
@dataclass(frozen=True)
class TrimmedMean(Aggregator[None]):
    """The mean of each coordinate without its ⌊beta · n⌋ smallest and as many largest values."""

    source: ClassVar[str] = "Yin et al. 2018, arXiv:1803.01498"
    needs_matrix: ClassVar[bool] = True
    is_translation_equivariant: ClassVar[bool] = True

    beta: Annotated[float, Bounds(ge=0, lt=0.5), "the share of the updates that is left out at each end"] = (
        0.1
    )

    def combine(self, block: Block, decision: None) -> Float64:
        trim = self.num_trimmed(block.num_rows)
        return kernels.mean_of_ordered(block.order_statistics(slice(trim, block.num_rows - trim)))

    def num_trimmed(self, num_rows: int) -> int:
        """⌊beta · n⌋ of beta as it is written: 0.29 · 100 is 29, which the float64 next to 0.29 is short of."""
        return int(Fraction(str(self.beta)) * num_rows)
