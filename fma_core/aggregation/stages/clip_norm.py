"""Norm clipping: every update is scaled down to a largest norm.

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
    """Scales every update whose L2 norm over all arrays is larger than max_norm down to max_norm.

    An update whose squared norm overflows float64 becomes zero.

    >>> import numpy as np
    >>> from fma_core.aggregation.aggregators import Mean
    >>> from fma_core.aggregation.strategy import Strategy
    >>> from fma_core.in_memory import fold_arrays
    >>> fold_arrays(Strategy(Mean(), stages=(ClipNorm(max_norm=5.0),)), [{"w": np.array([6.0, 8.0])}])["w"]
    array([3., 4.])
    """

    source: ClassVar[str] = "Sun et al. 2019, arXiv:1911.07963"
    mixes: ClassVar[bool] = False

    max_norm: Annotated[float, Bounds(gt=0), "the largest L2 norm, in the unit of the weights"]

    def map_rows(self, rows: Rows) -> RowMap:
        factors = clip_factors(np.sqrt(rows.squared_norms()), self.max_norm)
        return RowMap(np.diag(factors), rows.num_examples)
