"""Bucketing: random groups of updates are replaced by their means.

Source: Karimireddy et al. 2022, arXiv:2006.09365, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from fma_core.aggregation.aggregators.aggregator import Rows
from fma_core.aggregation.stages.stage import RowMap, RowStage, stages
from fma_core.parameters import Bounds


@stages.register("bucketing")
@dataclass(frozen=True)
class Bucketing(RowStage):
    """Puts the updates into buckets of `size` at random, and replaces each bucket by its plain mean.

    The last bucket may be smaller. A bucket has the examples of all its updates. The buckets follow from the seed and
    the round's number: a round that is computed again has the same ones, the next round has others.

    >>> import numpy as np
    >>> from fma_core.aggregation.aggregators import Median
    >>> from fma_core.aggregation.strategy import Strategy
    >>> from fma_core.in_memory import fold_arrays
    >>> updates = [{"w": np.array([value])} for value in (0.0, 0.0, 0.0, 8.0)]
    >>> fold_arrays(Strategy(Median(), stages=(Bucketing(size=4),)), updates)["w"]
    array([2.])
    """

    source: ClassVar[str] = "Karimireddy et al. 2022, arXiv:2006.09365"
    minimum: ClassVar[str] = "size · (r − 1) + 1, where the next step needs r updates"
    is_translation_equivariant: ClassVar[bool] = True

    size: Annotated[int, Bounds(ge=1), "the number of updates in a bucket"] = 2
    seed: Annotated[int, Bounds(ge=0), "the seed of the random numbers, together with the round's number"] = 0

    def min_updates(self, min_rows: int) -> int:
        return self.size * (min_rows - 1) + 1

    def map_rows(self, rows: Rows) -> RowMap:
        # The last two numbers keep the draw apart from that of the round's clients, which may have the same seed. The
        # numbers of PCG64 are the same in every version of numpy; `permutation` may change.
        rng = np.random.Generator(np.random.PCG64([self.seed, rows.round_number, 0, 2]))
        dealt = np.argsort(rng.random(rows.num_rows), kind="stable")
        buckets = [dealt[first : first + self.size] for first in range(0, rows.num_rows, self.size)]
        matrix = np.zeros((len(buckets), rows.num_rows))
        for index, bucket in enumerate(buckets):
            matrix[index, bucket] = 1 / len(bucket)
        examples = rows.num_examples
        return RowMap(matrix, tuple(sum(examples[row] for row in bucket) for bucket in buckets))
