"""The Gram matrix of a block: inner products of its rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

# Rows at a time, or fewer: a partial product then takes 2 MB at 1000 rows, and not 8 MB for each thread.
MAX_PANEL_ROWS = 256


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
    panel_rows = _panel_rows(len(matrix))
    for first in range(0, len(matrix), panel_rows):
        panel = matrix[first : first + panel_rows]
        rows = slice(first, first + len(panel))
        if first:
            total[rows, :first] += np.dot(panel, matrix[:first].T)
        total[rows, rows] += np.dot(panel, panel.T)


def mirrored(total: Float64) -> Float64:
    """Copy the lower triangle to the upper one, in place, and return the matrix."""
    panel_rows = _panel_rows(len(total))
    for first in range(0, len(total), panel_rows):
        rows = slice(first, first + panel_rows)
        total[:first, rows] = total[rows, :first].T
    return total


def _panel_rows(num_rows: int) -> int:
    # Panels of nearly equal height: for one of a single row BLAS uses another algorithm, and the bits of a row's
    # products would depend on its place.
    num_panels = -(-num_rows // MAX_PANEL_ROWS)
    return -(-num_rows // max(1, num_panels)) or 1
