"""The statistics of both kinds of tasks: count them at the client, merge them, and compute metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from fma_core.errors import InvalidStatistics
from fma_core.evaluation import class_counts, error_sums
from fma_core.evaluation.class_counts import ClassCounts
from fma_core.evaluation.error_sums import ErrorSums
from fma_core.evaluation.question import Question

Statistics = ClassCounts | ErrorSums


def statistics_of(
    question: Question, *, y_true: Any, y_pred: Any, scores: Any = None, losses: Any = None
) -> Statistics:
    """Count the statistics of these examples; nothing else about them leaves the client.

    y_true, y_pred: labels of the question, or numbers for a regression.
    scores: when the question has bins: from 0 to 1, of the positive label (binary), or a column for each label.
    losses: when the question has with_loss: the loss of each example.
    Raises InvalidStatistics.
    """
    if question.is_regression:
        if scores is not None:
            raise InvalidStatistics("a regression has no scores")
        return error_sums.count(question, y_true=y_true, y_pred=y_pred, losses=losses)
    return class_counts.count(question, y_true=y_true, y_pred=y_pred, scores=scores, losses=losses)


def merge(statistics: Iterable[Statistics]) -> Statistics:
    """Merge statistics into those of all examples together, in any order; they are read one by one.

    Raises InvalidStatistics without any, or when they answer different questions.
    """
    remaining = iter(statistics)
    first = next(remaining, None)
    if first is None:
        raise InvalidStatistics("there are no statistics to merge")
    checked: Iterator[Any] = _same_question(first.question, chain([first], remaining))
    if isinstance(first, ErrorSums):
        return error_sums.merge(first.question, checked)
    return class_counts.merge(first.question, checked)


def metrics_of(statistics: Statistics) -> dict[str, Any]:
    """The metrics by name: finite numbers, or None where undefined; for classes also `confusion` and `by_label`."""
    if isinstance(statistics, ErrorSums):
        return error_sums.metrics(statistics)
    return class_counts.metrics(statistics)


def to_json(statistics: Statistics) -> dict[str, Any]:
    """The statistics as JSON, with their question, so that they cannot be taken for those of another one."""
    question = {"question": statistics.question.to_json()}
    if isinstance(statistics, ErrorSums):
        return question | error_sums.to_json(statistics)
    return question | class_counts.to_json(statistics)


def from_json(question: Question, value: Any) -> Statistics:
    """Read statistics that somebody else counted. Raises InvalidStatistics when they cannot answer `question`."""
    if not isinstance(value, dict) or value.get("question") != question.to_json():
        named = value.get("question") if isinstance(value, dict) else value
        raise InvalidStatistics(
            f"statistics must name the question that was asked, {question.to_json()!r:.300}; found {named!r:.300}",
            where="question",
        )
    members = {name: member for name, member in value.items() if name != "question"}
    if question.is_regression:
        return error_sums.from_json(question, members)
    return class_counts.from_json(question, members)


def _same_question(question: Question, statistics: Iterable[Statistics]) -> Iterator[Statistics]:
    for one in statistics:
        if one.question != question:
            raise InvalidStatistics(
                f"all must answer one question: found {one.question!r:.200} beside {question!r:.200}"
            )
        yield one
