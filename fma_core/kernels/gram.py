"""The Gram matrix of a block: inner products of its rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

# Rows at a time: a partial product then takes 2 MB at 1000 rows, and not 8 MB for each thread.
PANEL_ROWS = 256


def gram(matrix: Float64) -> Float64:
    """matrix · matrixᵀ: (rows, rows), symmetric.

    Call it within `one_blas_thread`: the order in which BLAS adds depends on its threads.
    """
    total = np.zeros((len(matrix), len(matrix)))
    add_lower_gram(total, matrix)
    return mirrored(total)


def add_lower_gram(total: Float64, matrix: Float64) -> None:
    """Add matrix · matrixᵀ to the lower triangle of `total`; the upper triangle is invalid until `mirrored`."""
    # numpy copies a matrix with gaps between its rows before it calls BLAS: measured 3.5 times slower. With the same
    # array on both sides it calls BLAS's symmetric product: half the work.
    matrix = np.ascontiguousarray(matrix)
    for first in range(0, len(matrix), PANEL_ROWS):
        panel = matrix[first : first + PANEL_ROWS]
        rows = slice(first, first + len(panel))
        if first:
            total[rows, :first] += np.dot(panel, matrix[:first].T)
        total[rows, rows] += np.dot(panel, panel.T)


def mirrored(total: Float64) -> Float64:
    """Copy the lower triangle to the upper one, in place, and return the matrix."""
    for first in range(0, len(total), PANEL_ROWS):
        rows = slice(first, first + PANEL_ROWS)
        total[:first, rows] = total[rows, :first].T
    return total
