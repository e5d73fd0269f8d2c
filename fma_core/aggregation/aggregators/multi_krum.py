"""Multi-Krum: the mean of the updates with the best Krum scores.

Source: Blanchard et al. 2017, arXiv:1703.02757, section 4 and the experiments of section 6.
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
from fma_core.aggregation.aggregators.attackers import Attackers
from fma_core.aggregation.aggregators.krum import krum_choice
from fma_core.parameters import Bounds


@aggregators.register("multi_krum")
@dataclass(frozen=True)
class MultiKrum(Aggregator[Float64]):
    """The plain mean of the m updates with the best Krum scores.

    Of equal scores, those whose next distances are smaller. The order of the updates plays no part.

    >>> import numpy as np
    >>> from fma_core.in_memory import fold_arrays
    >>> updates = [{"w": np.array([value])} for value in (1.0, 2.0, 3.0, 6.0, 900.0)]
    >>> fold_arrays(MultiKrum(f=1), updates)["w"]
    array([3.])
    """

    source: ClassVar[str] = "Blanchard et al. 2017, arXiv:1703.02757"
    minimum: ClassVar[str] = "max(2·f + 3, m + f)"
    is_translation_equivariant: ClassVar[bool] = True
    measures_distances: ClassVar[bool] = True

    f: Attackers
    m: Annotated[int | None, Bounds(ge=1), "the number of updates to average; null: all but f"] = None

    @property
    def min_updates(self) -> int:
        return max(2 * self.f + 3, (self.m or 0) + self.f)

    def measure(self, rows: Rows) -> Float64:
        chosen = np.zeros(rows.num_rows)
        chosen[krum_choice(rows, f=self.f, count=self.m or rows.num_rows - self.f)] = 1
        return chosen

    def combine(self, block: Block, decision: Float64) -> Float64:
        result = block.weighted_sum(decision)
        return np.divide(result, np.count_nonzero(decision), out=result)

    def row_weights(self, decision: Float64, num_rows: int) -> RowWeights:
        return RowWeights(decision / np.count_nonzero(decision))
