"""Distances between rows, computed from their Gram matrix, for the robust rules that look at whole updates.

A row whose ‖row‖² overflows float64 has an infinite entry on the diagonal. It counts as infinitely far from every other
row: an update of enormous values is an outlier, and never a NaN that spoils the decision for all.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fma_core.aggregation.aggregators.aggregator import Float64
from fma_core.errors import NonFiniteResult


def is_measurable(gram: Float64) -> NDArray[np.bool_]:
    """Whether each row has a squared norm that is finite in float64."""
    return np.isfinite(np.diagonal(gram))


def squared_distances(gram: Float64) -> Float64:
    """‖row i − row j‖²: (rows, rows), 0 on the diagonal, infinite to and from a row that is not measurable."""
    norms = np.diagonal(gram)
    with np.errstate(over="ignore", invalid="ignore"):
        # In this order nothing of opposite sign is infinite, because |G_ij| ≤ √(G_ii G_jj).
        distances = (norms[:, None] - gram) + (norms[None, :] - gram)
        # After a stage the Gram matrix is symmetric but for rounding, which must not decide between equals.
        distances = np.minimum(distances, distances.T)
    # Rounding makes the distance of nearly equal rows a little negative.
    np.maximum(distances, 0, out=distances)
    is_far = ~is_measurable(gram)
    distances[is_far, :] = np.inf
    distances[:, is_far] = np.inf
    np.fill_diagonal(distances, 0)
    return distances


def distances_from(weights: Float64, gram: Float64) -> Float64:
    """‖z − row i‖ of each row, for z = Σ weights[j] · row j; all rows must be measurable.

    Computed from inner products. The distances between rows would be independent of a common shift, but for a far row
    of small weight they would leave the difference of two enormous squares.
    """
    inner = np.matmul(gram, weights)
    squares: Float64 = np.diagonal(gram) - 2 * inner + np.dot(weights, inner)
    distances: Float64 = np.sqrt(np.maximum(squares, 0))
    return distances


def clip_factors(norms: Float64, max_norm: float) -> Float64:
    """min(1, max_norm / norm) of each row; 0 for a row that is not measurable."""
    factors = np.ones(len(norms))
    is_longer = norms > max_norm
    factors[is_longer] = max_norm / norms[is_longer]
    return factors


def too_far_apart() -> NonFiniteResult:
    """The error of a rule that has to use rows that are not measurable; a correct bound on attackers rules it out."""
    return NonFiniteResult(
        "the updates are too large or too far apart: more of their squared norms overflow float64 than the rule can "
        "leave out"
    )
