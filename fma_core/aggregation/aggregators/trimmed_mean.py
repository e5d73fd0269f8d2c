"""The coordinate-wise trimmed mean.

Source: Yin et al. 2018, arXiv:1803.01498, definition 2, which leaves out nothing where ⌊βn⌋ is 0.
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
    """The mean of each coordinate without its ⌊beta · n⌋ smallest and largest values, but at least one at each end.

    Without that least one, fewer than 1 / beta updates would have their plain mean, which a single attacker decides. Of
    two updates nothing can be left out: they have their mean, as in the median. With a beta of 0 nothing is left out.

    >>> import numpy as np
    >>> from fma_core.in_memory import fold_arrays
    >>> updates = [{"w": np.array([value])} for value in (0.0, 2.0, 4.0, 900.0)]
    >>> fold_arrays(TrimmedMean(beta=0.25), updates)["w"]
    array([3.])
    """

    source: ClassVar[str] = "Yin et al. 2018, arXiv:1803.01498"
    needs_matrix: ClassVar[bool] = True
    is_translation_equivariant: ClassVar[bool] = True

    beta: Annotated[
        float,
        Bounds(ge=0, lt=0.5),
        "the share of the updates that is left out at each end; of three updates or more at least one",
    ] = 0.1

    def combine(self, block: Block, decision: None) -> Float64:
        trim = self.num_trimmed(block.num_rows)
        return kernels.mean_of_ordered(block.order_statistics(slice(trim, block.num_rows - trim)))

    def num_trimmed(self, num_rows: int) -> int:
        """⌊beta · n⌋, with beta as it is written in decimal: 0.29 · 100 is 29, but the float64 of 0.29 gives less."""
        if self.beta == 0 or num_rows < 3:
            return 0
        return max(1, int(Fraction(str(self.beta)) * num_rows))
