"""Areas under curves from two histograms of scores, with a bound on their difference from the areas of the scores.

Scores in one part of a histogram count as equal. When they are equal, as multiples of the parts' width, the areas are
exact; otherwise the order inside a part is unknown, and the bound is the largest change that it could make.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fma_core.evaluation.wire import Counts


@dataclass(frozen=True)
class Area:
    """An area; error_at_most: the largest distance of `value` from the area of the scores before they were counted."""

    value: float
    error_at_most: float


def roc_auc(positives: Counts, negatives: Counts) -> Area | None:
    """The probability that a positive example has a higher score than a negative one, ties half; None without both.

    Source: Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747.
    """
    above, below = positives.astype(np.float64), negatives.astype(np.float64)
    pairs = above.sum() * below.sum()
    if not pairs:
        return None
    lower = np.cumsum(below) - below
    tied = float(above @ below)
    # The positives of a part may all be above its negatives, or all below them.
    return Area((float(above @ lower) + tied / 2) / float(pairs), tied / 2 / float(pairs))


def average_precision(positives: Counts, negatives: Counts) -> Area | None:
    """The mean of the precision at each positive example, from the highest score on; None without a positive one.

    Like scikit-learn's average_precision_score: the area under the precision-recall curve as a sum of steps.
    Source: Davis and Goadrich 2006, doi:10.1145/1143844.1143874, on why the points are not joined by lines.
    """
    above, below = positives[::-1].astype(np.float64), negatives[::-1].astype(np.float64)
    total = float(above.sum())
    if not total:
        return None
    hits, misses = np.cumsum(above), np.cumsum(below)
    is_used = above > 0
    above, below, hits, misses = above[is_used], below[is_used], hits[is_used], misses[is_used]
    value = float(above @ (hits / (hits + misses)))
    # At best the positives of a part come first, all tied.
    best = float(above @ (hits / (hits + misses - below)))
    # At worst they come one by one after its negatives: the sum of (T + k) / (T + k + F) over k = 1 … p, which is
    # p - F * sum of 1 / (T + F + k), and a convex function is at most its integral around the middle.
    seen = hits - above + misses
    worst = float(np.sum(above - misses * np.log((seen + above + 0.5) / (seen + 0.5))))
    return Area(value / total, max(best - value, value - worst) / total)
