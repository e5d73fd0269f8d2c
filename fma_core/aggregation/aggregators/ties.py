"""The decision between equals: by further distances, then by what the rows hold, and never by their order.

Two updates that are each other's nearest have the same distance, so that Krum with one neighbour always has a tie.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fma_core.aggregation.aggregators.aggregator import Block, Float64, Rows

Contents = Callable[[], Float64]


def contents_of(rows: Rows) -> Contents:
    """A number for each row that follows from its values alone, equal for equal rows; computed when first needed.

    It is the product with one fixed vector, and not a hash: scaling or shifting all rows then keeps their order.
    """

    @cache
    def contents() -> Float64:
        found = rows.reduce(_contents)
        return np.zeros(rows.num_rows) if found is None else found

    return contents


def best_rows(scores: Float64, count: int, further: Float64, contents: Contents) -> NDArray[np.intp]:
    """The `count` rows with the smallest scores, in no order.

    further: (rows, any number), which decide between equal scores, the first column first; then `contents` does.
    """
    bound = np.partition(scores, count - 1)[count - 1]
    better, tied = np.flatnonzero(scores < bound), np.flatnonzero(scores == bound)
    num_chosen = count - len(better)
    if num_chosen == len(tied):
        return np.concatenate((better, tied))
    values = further[tied]
    order = np.lexsort((*values.T[::-1], np.zeros(len(tied))))
    is_equal = (values[order] == values[order[num_chosen]]).all(axis=1)
    if is_equal[num_chosen - 1]:
        equal = order[is_equal]
        order[is_equal] = equal[np.argsort(contents()[tied[equal]], kind="stable")]
    return np.concatenate((better, tied[order[:num_chosen]]))


def _contents(block: Block) -> Float64:
    # The numbers of PCG64 are the same in every version of numpy.
    stream = np.random.PCG64(0).advance(block.place)
    vector = np.random.Generator(stream).random(block.num_columns)
    found = np.empty(block.num_rows)
    for index in range(block.num_rows):
        row = block.row(index)
        found[index] = np.add.reduce(np.multiply(row, vector, out=row))
    return found
