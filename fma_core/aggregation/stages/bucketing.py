"""Bucketing: random groups of updates take part as their means.

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
    """The updates are dealt into buckets of `size` at random, and each bucket takes part as its plain mean.

    The last bucket may be smaller. A bucket has the examples of all its updates. The same seed deals the same when a
    round is computed again, and anew in the next round.
    """

    source: ClassVar[str] = "Karimireddy et al. 2022, arXiv:2006.09365"
    minimum: ClassVar[str] = "size · (r − 1) + 1, for r updates in what follows"
    is_translation_equivariant: ClassVar[bool] = True

    size: Annotated[int, Bounds(ge=1), "how many updates a bucket has"] = 2
    seed: Annotated[int, Bounds(ge=0), "what the random numbers are drawn from, with the round's number"] = 0

    def min_updates(self, min_rows: int) -> int:
        return self.size * (min_rows - 1) + 1

    def map_rows(self, rows: Rows) -> RowMap:
        dealt = np.random.default_rng([self.seed, rows.round_number]).permutation(rows.num_rows)
        buckets = [dealt[first : first + self.size] for first in range(0, rows.num_rows, self.size)]
        matrix = np.zeros((len(buckets), rows.num_rows))
        for index, bucket in enumerate(buckets):
            matrix[index, bucket] = 1 / len(bucket)
        examples = rows.num_examples
        return RowMap(matrix, tuple(sum(examples[row] for row in bucket) for bucket in buckets))
