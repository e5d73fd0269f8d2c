"""Regression: sums of errors, and the mean and spread of the targets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import fsum, isfinite, sqrt
from typing import Any

import numpy as np

from fma_core.errors import InvalidStatistics
from fma_core.evaluation.question import Question
from fma_core.evaluation.values import column_of, losses_of
from fma_core.evaluation.wire import count_of, members_of, sum_of

NAMES = ("num_examples", "errors", "absolute_errors", "squared_errors", "target_mean", "target_squares")
SMALLEST = 5e-324  # the smallest float64 above 0
SLACK = 1e-6  # between two sums of the same numbers in another order


@dataclass(frozen=True)
class ErrorSums:
    """The statistics of a regression; an error is prediction minus target.

    target_squares: the sum of the squared differences of the targets from their mean. Squares of the targets themselves
        would lose every digit of the spread when the mean is far from 0.
    """

    question: Question
    num_examples: int
    errors: float
    absolute_errors: float
    squared_errors: float
    target_mean: float
    target_squares: float
    loss: float | None = None


def count(question: Question, *, y_true: Any, y_pred: Any, losses: Any = None) -> ErrorSums:
    """Sum up the errors of examples. Raises InvalidStatistics.

    Source: Chan, Golub and LeVeque 1983, doi:10.1080/00031305.1983.10483115, the corrected two-pass algorithm.
    """
    targets = column_of(y_true, "y_true", is_number=True)
    predictions = column_of(y_pred, "y_pred", size=len(targets), is_number=True)
    with np.errstate(over="ignore", invalid="ignore"):
        errors = predictions - targets
        mean = targets.mean()
        # Far from 0 its rounding is as large as the spread: add what is left, and subtract what then is left.
        mean += (targets - mean).mean()
        differences = targets - mean
        rest = differences.sum()
        sums = {
            "errors": float(errors.sum()),
            "absolute_errors": float(np.abs(errors).sum()),
            "squared_errors": float(errors @ errors),
            "target_mean": float(mean),
            "target_squares": float(
                np.maximum(0.0, np.square(differences).sum() - rest * rest / len(targets))
            ),
        }
    for name, value in sums.items():
        sum_of(value, name)
    return ErrorSums(question, len(targets), **sums, loss=losses_of(question, losses, size=len(targets)))


def merge(question: Question, sums: Iterable[ErrorSums]) -> ErrorSums:
    """Add sums exactly and round once, so that their order does not matter.

    The spread of the targets has a relative error of up to |mean| / spread · 2^-52, because the means were rounded when
    they were counted. Source: Chan, Golub and LeVeque 1983, doi:10.1080/00031305.1983.10483115.
    """
    parts = list(sums)
    num_examples = sum(part.num_examples for part in parts)
    least = min(part.target_mean for part in parts)
    mean = least + fsum(part.num_examples * (part.target_mean - least) for part in parts) / num_examples
    rest = fsum(part.num_examples * (part.target_mean - mean) for part in parts)
    return ErrorSums(
        question,
        num_examples,
        errors=fsum(part.errors for part in parts),
        absolute_errors=fsum(part.absolute_errors for part in parts),
        squared_errors=fsum(part.squared_errors for part in parts),
        target_mean=mean,
        target_squares=max(
            0.0,
            fsum(part.target_squares + part.num_examples * (part.target_mean - mean) ** 2 for part in parts)
            - rest**2 / num_examples,
        ),
        loss=fsum(part.loss or 0.0 for part in parts) if question.with_loss else None,
    )


def to_json(sums: ErrorSums) -> dict[str, Any]:
    value: dict[str, Any] = {name: getattr(sums, name) for name in NAMES}
    return value if sums.loss is None else {**value, "loss": sums.loss}


def from_json(question: Question, value: Any) -> ErrorSums:
    """Read the JSON of `to_json`. Raises InvalidStatistics, also for sums that no errors can have."""
    members = members_of(value, [*NAMES, "loss"] if question.with_loss else NAMES)
    num_examples = count_of(members["num_examples"], "num_examples")
    if num_examples < 1:
        raise InvalidStatistics("num_examples must be at least 1; found 0", where="num_examples")
    absolute = sum_of(members["absolute_errors"], "absolute_errors", at_least=0.0)
    squared = sum_of(members["squared_errors"], "squared_errors", at_least=0.0)
    errors = sum_of(members["errors"], "errors")
    if abs(errors) > absolute * (1 + SLACK):
        raise InvalidStatistics("errors cannot sum up to more than absolute_errors", where="errors")
    # Cauchy and Schwarz, with square roots, which neither overflow nor underflow. The square of a tiny error may be 0.
    if absolute > sqrt(num_examples) * sqrt(squared + num_examples * SMALLEST) * (1 + SLACK):
        raise InvalidStatistics(
            "absolute_errors cannot be above the root of num_examples * squared_errors",
            where="absolute_errors",
        )
    return ErrorSums(
        question,
        num_examples,
        errors=errors,
        absolute_errors=absolute,
        squared_errors=squared,
        target_mean=sum_of(members["target_mean"], "target_mean"),
        target_squares=sum_of(members["target_squares"], "target_squares", at_least=0.0),
        loss=sum_of(members["loss"], "loss") if question.with_loss else None,
    )


def metrics(sums: ErrorSums) -> dict[str, Any]:
    """The metrics of a regression; r2 is None for targets that are all equal."""
    n = sums.num_examples
    values = {
        "num_examples": n,
        "mse": sums.squared_errors / n,
        "rmse": sqrt(sums.squared_errors / n),
        "mae": sums.absolute_errors / n,
        "mean_error": sums.errors / n,
        "r2": _r2(sums),
    }
    return values if sums.loss is None else {**values, "loss": sums.loss / n}


def _r2(sums: ErrorSums) -> float | None:
    # The rounding error of the mean looks like a spread where there is none.
    rounding = sums.num_examples * (16 * np.finfo(np.float64).eps * sums.target_mean) ** 2
    if sums.target_squares <= rounding:
        return None
    r2 = 1 - sums.squared_errors / sums.target_squares
    return r2 if isfinite(r2) else None
