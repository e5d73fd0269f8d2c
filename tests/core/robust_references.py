"""The robust rules and row stages line by line as their papers have them: whole rows and loops, no Gram matrix."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def median(rows: Array) -> Array:
    return np.array([statistics.median(column) for column in rows.T.tolist()])


def trimmed_mean(rows: Array, k: int) -> Array:
    return np.array([statistics.fmean(sorted(column)[k : len(rows) - k]) for column in rows.T.tolist()])


def krum_scores(rows: Array, num_neighbours: int) -> list[tuple[float, ...]]:
    """The score of each row, and its further distances, which decide between equal scores."""
    scores = []
    for i, row in enumerate(rows):
        distances = sorted(float(np.sum((row - other) ** 2)) for j, other in enumerate(rows) if j != i)
        scores.append((sum(distances[:num_neighbours]), *distances[num_neighbours:]))
    return scores


def krum(rows: Array, f: int) -> Array:
    scores = krum_scores(rows, len(rows) - f - 2)
    return rows[scores.index(min(scores))]


def multi_krum(rows: Array, f: int, m: int | None = None) -> Array:
    scores = krum_scores(rows, len(rows) - f - 2)
    best = sorted(range(len(rows)), key=lambda i: scores[i])[: m or len(rows) - f]
    return rows[best].mean(axis=0)


def bulyan(rows: Array, f: int) -> Array:
    left, picked = list(range(len(rows))), []
    for _ in range(len(rows) - 2 * f):
        scores = krum_scores(rows[left], max(1, len(left) - f - 2))
        picked.append(left.pop(scores.index(min(scores))))
    answer = []
    for column in rows[picked].T.tolist():
        middle = statistics.median(column)
        answer.append(statistics.fmean(sorted(column, key=lambda v: abs(v - middle))[: len(picked) - 2 * f]))
    return np.array(answer)


def centered_clipping(rows: Array, tau: float, iterations: int) -> Array:
    v = np.zeros(rows.shape[1])
    for _ in range(iterations):
        v = v + np.mean([(row - v) * min(1, tau / np.linalg.norm(row - v)) for row in rows], axis=0)
    return v


def norm_bounded_mean(rows: Array, max_norm: float | None = None) -> Array:
    norms = [float(np.linalg.norm(row)) for row in rows]
    bound = statistics.median(norms) if max_norm is None else max_norm
    return np.mean([row * min(1, bound / norm) for row, norm in zip(rows, norms, strict=True)], axis=0)


def fltrust(rows: Array, root: int) -> Array:
    r = rows[root]
    total, step = 0.0, np.zeros(rows.shape[1])
    for i, row in enumerate(rows):
        if i != root:
            trust = max(0.0, float(row @ r / np.linalg.norm(row) / np.linalg.norm(r)))
            total += trust
            step += trust * row * np.linalg.norm(r) / np.linalg.norm(row)
    return step / total


def distance_sum(z: Array, rows: Array, num_examples: Sequence[int]) -> float:
    """The sum that the geometric median minimises."""
    return sum(n * float(np.linalg.norm(z - row)) for n, row in zip(num_examples, rows, strict=True))


def clip_norm(rows: Array, max_norm: float) -> Array:
    return np.array([row * min(1, max_norm / np.linalg.norm(row)) for row in rows])


def nnm(rows: Array, f: int) -> Array:
    mixed: list[Any] = []
    for row in rows:
        nearest = sorted(range(len(rows)), key=lambda j: float(np.sum((rows[j] - row) ** 2)))
        mixed.append(rows[nearest[: len(rows) - f]].mean(axis=0))
    return np.array(mixed)
