"""The question of an evaluation, which is the same for every client, so that all count the same things."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fma_core.errors import InvalidQuestion

Label = int | str

TASKS = ("binary", "multiclass", "regression")
FIELDS = ("task", "labels", "bins", "with_loss")
MAX_LABELS = 100
MAX_LABEL_CHARACTERS = 100
MAX_BINS = 10_000
MAX_COUNTS = 50_000  # of one client: a few hundred kilobytes of JSON


@dataclass(frozen=True)
class Question:
    """A task, and the counts and sums to collect for it.

    task: "binary", "multiclass" or "regression".
    labels: the classes, in the order of the confusion matrix; for two classes the negative one first, (0, 1) by
    default.
    bins: the number of equal parts in which scores from 0 to 1 are counted, for areas under curves; 0: without scores.
        Each edge begins a part, 1 included, so that scores that are multiples of 1/bins are separated exactly.
    with_loss: whether to collect the sum of a loss; the clients agree on which one.
    Raises InvalidQuestion.
    """

    task: str
    labels: tuple[Label, ...] = ()
    bins: int = 0
    with_loss: bool = False

    def __post_init__(self) -> None:
        if self.task == "binary" and self.labels == ():
            object.__setattr__(self, "labels", (0, 1))
        _check(self)

    @classmethod
    def from_json(cls, value: Any) -> Question:
        """Read the JSON of `to_json`. Raises InvalidQuestion, also for unknown members."""
        if not isinstance(value, Mapping):
            raise InvalidQuestion(f"a question is an object with a task; found {value!r:.60}")
        unknown = [name for name in value if name not in FIELDS]
        if unknown or "task" not in value:
            raise InvalidQuestion(
                f"a question has a task, and may have {', '.join(FIELDS[1:])}; found {sorted(map(str, value))!r:.200}"
            )
        members = dict(value)
        if isinstance(members.get("labels"), list):
            members["labels"] = tuple(members["labels"])
        return cls(**members)

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "labels": list(self.labels),
            "bins": self.bins,
            "with_loss": self.with_loss,
        }

    @property
    def is_regression(self) -> bool:
        return self.task == "regression"

    @property
    def scored(self) -> tuple[int, ...]:
        """The positions of the labels with scores: the positive one of two, or all of several."""
        if not self.bins:
            return ()
        return (1,) if self.task == "binary" else tuple(range(len(self.labels)))

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """The lower edges of the parts. Each is one division, so that 0.29 is exactly the float of the literal 0.29."""
        return np.arange(self.bins + 1) / self.bins


def _check(question: Question) -> None:
    task, labels, bins = question.task, question.labels, question.bins
    if task not in TASKS:
        raise InvalidQuestion(f"a task is one of {', '.join(TASKS)}; found {task!r:.60}", part="task")
    if not isinstance(question.with_loss, bool):
        raise InvalidQuestion(
            f"with_loss is true or false; found {question.with_loss!r:.60}", part="with_loss"
        )
    if not _is_count(bins) or bins > MAX_BINS:
        raise InvalidQuestion(f"bins is an integer from 0 to {MAX_BINS}; found {bins!r:.60}", part="bins")
    if question.is_regression:
        if labels != () or bins:
            raise InvalidQuestion("a regression has neither labels nor bins", part="labels")
        return
    _check_labels(task, labels)
    counts = len(labels) ** 2 + 2 * (bins + 1) * len(question.scored)
    if counts > MAX_COUNTS:
        raise InvalidQuestion(
            f"{len(labels)} labels in {bins} bins are {counts} counts; {MAX_COUNTS} may be asked for",
            part="bins",
        )


def _check_labels(task: str, labels: Any) -> None:
    if not isinstance(labels, tuple) or not all(_is_label(label) for label in labels):
        raise InvalidQuestion(
            f"labels are integers, or texts of up to {MAX_LABEL_CHARACTERS} characters; found {labels!r:.100}",
            part="labels",
        )
    if len(set(labels)) != len(labels):
        raise InvalidQuestion(f"labels are named once each; found {labels!r:.100}", part="labels")
    if task == "binary" and len(labels) != 2:
        raise InvalidQuestion(f"a binary task has 2 labels; found {len(labels)}", part="labels")
    if not 2 <= len(labels) <= MAX_LABELS:
        raise InvalidQuestion(
            f"a classification has 2 to {MAX_LABELS} labels; found {len(labels)}", part="labels"
        )


def _is_label(value: Any) -> bool:
    if isinstance(value, str):
        return 1 <= len(value) <= MAX_LABEL_CHARACTERS and "\x00" not in value
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
