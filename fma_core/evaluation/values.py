"""The data of a client: labels, predictions and losses, one for each example."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fma_core.errors import InvalidStatistics
from fma_core.evaluation.question import Question
from fma_core.evaluation.wire import sum_of


def column_of(
    values: Any, name: str, *, size: int | None = None, is_number: bool = False
) -> npt.NDArray[Any]:
    """Read one value for each of at least one example. Raises InvalidStatistics."""
    try:
        column = np.asarray(values, np.float64 if is_number else None)
    except (TypeError, ValueError) as error:
        raise InvalidStatistics(f"{name} must be a list with a value for each example: {error}") from error
    if column.ndim != 1 or not len(column):
        raise InvalidStatistics(
            f"{name} must have one value for each of at least one example; found the shape {column.shape}"
        )
    if size is not None and len(column) != size:
        raise InvalidStatistics(f"{name} must have {size} values, as y_true has; found {len(column)}")
    if is_number and not np.isfinite(column).all():
        raise InvalidStatistics(f"{name} must be finite")
    return column


def losses_of(question: Question, losses: Any, *, size: int) -> float | None:
    """The sum of the losses; None when the question does not ask for them."""
    if not question.with_loss:
        if losses is not None:
            raise InvalidStatistics("the question asks for no losses: it has with_loss=False")
        return None
    return sum_of(float(column_of(losses, "losses", size=size, is_number=True).sum()), "loss")
