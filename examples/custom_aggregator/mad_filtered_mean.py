"""The mean of each coordinate, without the values that are far from the median.

    keep x_i where |x_i − median(x)| ≤ width · 1.4826 · MAD,   MAD = median(|x_i − median(x)|)

1.4826 · MAD estimates the standard deviation of normal values, even when up to half of them are replaced by others.
Source: Hampel 1974, doi:10.1080/01621459.1974.10482962; as an outlier rule: Leys et al. 2013,
doi:10.1016/j.jesp.2013.03.013.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from fma_core.aggregation.aggregators import Aggregator, Block, Float64
from fma_core.parameters import Bounds

STANDARD_DEVIATION = 1.4826


@dataclass(frozen=True)
class MadFilteredMean(Aggregator[None]):
    """The mean of each coordinate, without values further from the median than `width` robust standard deviations.

    As exact as the mean without attackers, and as robust as the median when fewer than half of the clients attack.
    """

    source: ClassVar[str] = "Hampel 1974, doi:10.1080/01621459.1974.10482962"
    needs_matrix: ClassVar[bool] = True
    is_translation_equivariant: ClassVar[bool] = True

    # With 1 or more, at least half of the values are kept.
    width: Annotated[
        float, Bounds(ge=1), "the largest distance from the median, in robust standard deviations"
    ] = 3.0

    def combine(self, block: Block, decision: None) -> Float64:
        # (columns, rows), sorted so that values are added in order of size
        columns = block.sorted_columns().astype(np.float64)
        distances = np.abs(columns - np.median(columns, axis=1, keepdims=True))
        spread = STANDARD_DEVIATION * np.median(distances, axis=1, keepdims=True)
        kept = distances <= self.width * spread
        mean: Float64 = np.where(kept, columns, 0.0).sum(axis=1) / np.count_nonzero(kept, axis=1)
        return mean
