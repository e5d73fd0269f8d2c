"""The statistics of either kind of task: counted where the examples are, merged, and read as metrics."""

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
    """What the question asks of these examples; all that leaves the place where they are.

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
    """The statistics of all their examples together, whatever their order; read one by one.

    Raises InvalidStatistics without any, or when they answer different questions.
    """
    found = iter(statistics)
    first = next(found, None)
    if first is None:
        raise InvalidStatistics("there are no statistics to merge")
    everyone: Iterator[Any] = _same_question(first.question, chain([first], found))
    if isinstance(first, ErrorSums):
        return error_sums.merge(first.question, everyone)
    return class_counts.merge(first.question, everyone)


def metrics_of(statistics: Statistics) -> dict[str, Any]:
    """Metrics by name: finite numbers, None where one is not defined, and of classes `confusion` and `by_label`."""
    if isinstance(statistics, ErrorSums):
        return error_sums.metrics(statistics)
    return class_counts.metrics(statistics)


def to_json(statistics: Statistics) -> dict[str, Any]:
    """With the question that they answer, so that nobody takes them for another one's."""
    question = {"question": statistics.question.to_json()}
    if isinstance(statistics, ErrorSums):
        return question | error_sums.to_json(statistics)
    return question | class_counts.to_json(statistics)


def from_json(question: Question, value: Any) -> Statistics:
    """Statistics that somebody else counted. Raises InvalidStatistics for what cannot be an answer to `question`."""
    if not isinstance(value, dict) or value.get("question") != question.to_json():
        found = value.get("question") if isinstance(value, dict) else value
        raise InvalidStatistics(
            f"statistics must name the question that was asked, {question.to_json()!r:.300}; found {found!r:.300}",
            where="question",
        )
    said = {name: member for name, member in value.items() if name != "question"}
    if question.is_regression:
        return error_sums.from_json(question, said)
    return class_counts.from_json(question, said)


def _same_question(question: Question, statistics: Iterable[Statistics]) -> Iterator[Statistics]:
    for one in statistics:
        if one.question != question:
            raise InvalidStatistics(
                f"all must answer one question: found {one.question!r:.200} beside {question!r:.200}"
            )
        yield one
