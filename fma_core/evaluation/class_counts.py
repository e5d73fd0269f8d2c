"""Classification: the confusion matrix, and histograms of the scores of each label."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

import numpy as np
import numpy.typing as npt

from fma_core.errors import InvalidStatistics
from fma_core.evaluation.areas import Area, average_precision, roc_auc
from fma_core.evaluation.question import Question
from fma_core.evaluation.values import column_of, losses_of
from fma_core.evaluation.wire import MAX_COUNT, Counts, members_of, sum_of, table_of

Metrics = dict[str, Any]


@dataclass(frozen=True, eq=False)
class ClassCounts:
    """The statistics of a classification.

    confusion: (labels, labels), the number of examples of each true label (row) with each predicted label (column).
    positives, negatives: (labels with scores, bins + 1), the number of examples of the label, and of all others, with a
        score in each part.
    loss: the sum; None when the question does not ask for it.
    """

    question: Question
    confusion: Counts
    positives: Counts
    negatives: Counts
    loss: float | None = None

    @property
    def num_examples(self) -> int:
        return int(self.confusion.sum())


def count(
    question: Question, *, y_true: Any, y_pred: Any, scores: Any = None, losses: Any = None
) -> ClassCounts:
    """Count examples. scores: of the positive label (binary), or a column for each label. Raises InvalidStatistics."""
    truth = _positions(question, y_true, "y_true")
    taken_for = _positions(question, y_pred, "y_pred", size=len(truth))
    size = len(question.labels)
    confusion = np.bincount(truth * size + taken_for, minlength=size * size).reshape(size, size)
    positives, negatives = _histograms(question, truth, scores)
    loss = losses_of(question, losses, size=len(truth))
    return ClassCounts(question, confusion.astype(np.int64), positives, negatives, loss)


def merge(question: Question, parts: Iterable[ClassCounts]) -> ClassCounts:
    """Add counts as integers, and losses exactly, so that their order does not matter."""
    size, columns = len(question.labels), (len(question.scored), question.bins + 1)
    confusion = np.zeros((size, size), np.int64)
    positives, negatives = np.zeros(columns, np.int64), np.zeros(columns, np.int64)
    losses: list[float] = []
    for part in parts:
        confusion += part.confusion
        positives += part.positives
        negatives += part.negatives
        if part.loss is not None:
            losses.append(part.loss)
    return ClassCounts(
        question, confusion, positives, negatives, fsum(losses) if question.with_loss else None
    )


def to_json(counts: ClassCounts) -> dict[str, Any]:
    value: dict[str, Any] = {"confusion": counts.confusion.tolist()}
    if counts.question.bins:
        value |= {"positives": counts.positives.tolist(), "negatives": counts.negatives.tolist()}
    if counts.loss is not None:
        value["loss"] = counts.loss
    return value


def from_json(question: Question, value: Any) -> ClassCounts:
    """Read the JSON of `to_json`. Raises InvalidStatistics, also for counts that cannot be of the same examples."""
    names = ["confusion", *(["positives", "negatives"] if question.bins else [])]
    members = members_of(value, [*names, "loss"] if question.with_loss else names)
    size, scored = len(question.labels), len(question.scored)
    confusion = table_of(members["confusion"], (size, size), "confusion")
    num_examples = int(confusion.sum())
    if not 1 <= num_examples <= MAX_COUNT:
        raise InvalidStatistics(f"confusion must count 1 to 2**40 examples; found {num_examples}")
    positives = table_of(members.get("positives", []), (scored, question.bins + 1), "positives")
    negatives = table_of(members.get("negatives", []), (scored, question.bins + 1), "negatives")
    of_label = confusion.sum(axis=1)[list(question.scored)]
    for where, histogram, expected in (
        ("positives", positives, of_label),
        ("negatives", negatives, num_examples - of_label),
    ):
        if not np.array_equal(histogram.sum(axis=1), expected):
            raise InvalidStatistics(
                f"{where} must count the examples of the confusion matrix, {expected.tolist()}; "
                f"found {histogram.sum(axis=1).tolist()}",
                where=where,
            )
    loss = sum_of(members["loss"], "loss") if question.with_loss else None
    return ClassCounts(question, confusion, positives, negatives, loss)


def metrics(counts: ClassCounts) -> Metrics:
    """The metrics of scikit-learn, by the same formulas; 0 for a ratio without examples, None for an undefined metric.

    Source: Sokolova and Lapalme 2009, doi:10.1016/j.ipm.2009.03.002; Cohen 1960, doi:10.1177/001316446002000104;
    Gorodkin 2004, doi:10.1016/j.compbiolchem.2004.09.006 (Matthews' coefficient for many classes).
    """
    labels = counts.question.labels
    confusion = counts.confusion
    hits = np.diag(confusion)
    true, taken = confusion.sum(axis=1), confusion.sum(axis=0)
    num_examples = counts.num_examples
    precision, recall = _ratio(hits, taken), _ratio(hits, true)
    f1 = _ratio(2 * hits, true + taken)
    accuracy = int(hits.sum()) / num_examples
    values_by_name: Metrics = {
        "num_examples": num_examples,
        "accuracy": accuracy,
        "balanced_accuracy": float(recall[true > 0].mean()),
        "kappa": _kappa(confusion),
        "matthews": _matthews(confusion),
    }
    for name, values in (("precision", precision), ("recall", recall), ("f1", f1)):
        values_by_name[f"{name}_macro"] = float(values.mean())
        # Every example has one label and one prediction: each false negative of a class is a false positive of another.
        values_by_name[f"{name}_micro"] = accuracy
        values_by_name[f"{name}_weighted"] = float(values @ true) / num_examples
    by_label: list[Metrics] = [
        {
            "label": label,
            "num_examples": int(true[i]),
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
        }
        for i, label in enumerate(labels)
    ]
    if counts.question.task == "binary":
        values_by_name |= {name: by_label[1][name] for name in ("precision", "recall", "f1")}
        values_by_name["specificity"] = float(recall[0])
    values_by_name |= _areas(counts, true, by_label)
    if counts.loss is not None:
        values_by_name["loss"] = counts.loss / num_examples
    return values_by_name | {"confusion": confusion.tolist(), "by_label": by_label}


def _positions(
    question: Question, values: Any, name: str, *, size: int | None = None
) -> npt.NDArray[np.intp]:
    column = column_of(values, name, size=size)
    position_of = {label: position for position, label in enumerate(question.labels)}
    try:
        distinct, which = np.unique(column, return_inverse=True)
        positions = [position_of[label] for label in distinct.tolist()]
    except KeyError as error:
        raise InvalidStatistics(
            f"{name} holds {error.args[0]!r:.60}, which is not one of the labels {list(question.labels)!r:.200}"
        ) from error
    except TypeError as error:
        raise InvalidStatistics(f"{name} must hold labels of one kind: {error}") from error
    return np.array(positions, np.intp)[which]


def _histograms(question: Question, truth: npt.NDArray[np.intp], scores: Any) -> tuple[Counts, Counts]:
    shape = (len(question.scored), question.bins + 1)
    positives, negatives = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    if not question.bins:
        if scores is not None:
            raise InvalidStatistics("the question asks for no scores: it has no bins")
        return positives, negatives
    given = np.asarray(scores if scores is not None else (), np.float64)
    expected = (len(truth),) if question.task == "binary" else (len(truth), len(question.labels))
    if given.shape != expected:
        raise InvalidStatistics(f"scores must have the shape {expected}; found {given.shape}")
    if not ((given >= 0) & (given <= 1)).all():
        raise InvalidStatistics(
            "scores must lie between 0 and 1: a sigmoid brings them there, in the same order"
        )
    part = np.searchsorted(question.edges, given.reshape(len(truth), -1), side="right") - 1
    for row, label in enumerate(question.scored):
        is_positive = truth == label
        positives[row] = np.bincount(part[is_positive, row], minlength=question.bins + 1)
        negatives[row] = np.bincount(part[~is_positive, row], minlength=question.bins + 1)
    return positives, negatives


def _ratio(part: Counts, whole: Counts) -> npt.NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def _kappa(confusion: Counts) -> float | None:
    true, taken = _exact(confusion.sum(axis=1)), _exact(confusion.sum(axis=0))
    total, agreed = sum(true), sum(_exact(np.diag(confusion)))
    by_chance = sum(t * p for t, p in zip(true, taken, strict=True))
    return None if by_chance == total**2 else (agreed * total - by_chance) / (total**2 - by_chance)


def _matthews(confusion: Counts) -> float:
    true, taken = _exact(confusion.sum(axis=1)), _exact(confusion.sum(axis=0))
    total, agreed = sum(true), sum(_exact(np.diag(confusion)))
    together = agreed * total - sum(t * p for t, p in zip(true, taken, strict=True))
    spread_true, spread_taken = total**2 - sum(t * t for t in true), total**2 - sum(p * p for p in taken)
    if not spread_true or not spread_taken:
        return 0.0
    return float(together / (float(spread_true) ** 0.5 * float(spread_taken) ** 0.5))


def _exact(counts: Counts) -> list[int]:
    """The counts as Python's integers: their products exceed 64 bits, and differences of products exceed floats."""
    exact: list[int] = counts.tolist()
    return exact


def _areas(counts: ClassCounts, true: Counts, by_label: Sequence[Metrics]) -> Metrics:
    question = counts.question
    areas_by_name: Metrics = {}
    for name, area_of in (("roc_auc", roc_auc), ("average_precision", average_precision)):
        areas: list[Area | None] = []
        for row, label in enumerate(question.scored):
            area = area_of(counts.positives[row], counts.negatives[row])
            areas.append(area)
            by_label[label].update(_named(name, area))
        if question.task == "binary" and areas:
            areas_by_name |= _named(name, areas[0])
        elif areas:
            known = [(area, int(true[i])) for i, area in enumerate(areas) if area is not None]
            areas_by_name |= _named(f"{name}_macro", _mean([(area, 1) for area, _ in known]))
            areas_by_name |= _named(f"{name}_weighted", _mean(known))
    return areas_by_name


def _mean(areas: Sequence[tuple[Area, int]]) -> Area | None:
    total = sum(weight for _, weight in areas)
    if not total:
        return None
    return Area(
        sum(area.value * weight for area, weight in areas) / total,
        sum(area.error_at_most * weight for area, weight in areas) / total,
    )


def _named(name: str, area: Area | None) -> Metrics:
    return {
        name: None if area is None else area.value,
        f"{name}_error_at_most": None if area is None else area.error_at_most,
    }
