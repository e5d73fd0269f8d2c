"""Norm clipping: no update is longer than a bound.

Source: Sun et al. 2019, arXiv:1911.07963, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from fma_core.aggregation.aggregators.aggregator import Rows
from fma_core.aggregation.aggregators.distances import clip_factors
from fma_core.aggregation.stages.stage import RowMap, RowStage, stages
from fma_core.parameters import Bounds


@stages.register("clip_norm")
@dataclass(frozen=True)
class ClipNorm(RowStage):
    """Every update that is longer than max_norm (its L2 norm, over all arrays) is scaled down to it.

    An update so long that the square of its norm overflows float64 counts for nothing.
    """

    source: ClassVar[str] = "Sun et al. 2019, arXiv:1911.07963"
    mixes: ClassVar[bool] = False

    max_norm: Annotated[float, Bounds(gt=0), "the largest L2 norm, in the unit of the weights"]

    def map_rows(self, rows: Rows) -> RowMap:
        factors = clip_factors(np.sqrt(rows.squared_norms()), self.max_norm)
        return RowMap(np.diag(factors), rows.num_examples)
