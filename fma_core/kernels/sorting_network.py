"""The comparisons of a sorting network: they are the same for all columns, so that many are sorted at once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=16)
def comparators(num_rows: int, first: int = 0, last: int | None = None) -> NDArray[np.uint32]:
    """Pairs (i, j), i < j, that sort `num_rows` values when each moves the smaller one to i: (comparators, 2).

    Only the places from `first` up to `last` are right in the end; comparisons without effect on them are left out.
    """
    needed = set(range(num_rows)[first:last])
    pairs = []
    for pair in reversed(list(_merge_exchange(num_rows))):
        if not needed.isdisjoint(pair):
            needed.update(pair)
            pairs.append(pair)
    return np.array(pairs[::-1], np.uint32).reshape(-1, 2)


def _merge_exchange(num_rows: int) -> Iterator[tuple[int, int]]:
    """Source: Batcher 1968, "Sorting networks and their applications" (odd-even merge sort)."""
    run = 1
    while run < num_rows:
        step = run
        while step:
            for first in range(step % run, num_rows - step, 2 * step):
                for low in range(first, min(first + step, num_rows - step)):
                    if low // (2 * run) == (low + step) // (2 * run):
                        yield low, low + step
            step //= 2
        run *= 2
