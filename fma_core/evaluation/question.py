"""What an evaluation asks of every client, so that all of them count the same things."""

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
    """A task, and how finely it is looked at.

    task: "binary", "multiclass" or "regression".
    labels: the classes, in the order of the confusion matrix; of two the negative one first, (0, 1) by default.
    bins: into how many equal parts scores from 0 to 1 are counted, for areas under curves; 0: no scores are asked for.
        Each edge begins a part, 1 included, so that scores which are multiples of 1/bins are told apart exactly.
    with_loss: whether the sum of a loss is asked for, whichever the clients agreed on.
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
        """Raises InvalidQuestion, for members that are not known too."""
        if not isinstance(value, Mapping):
            raise InvalidQuestion(f"a question is an object with a task; found {value!r:.60}")
        unknown = [name for name in value if name not in FIELDS]
        if unknown or "task" not in value:
            raise InvalidQuestion(
                f"a question has a task, and may have {', '.join(FIELDS[1:])}; found {sorted(map(str, value))!r:.200}"
            )
        said = dict(value)
        if isinstance(said.get("labels"), list):
            said["labels"] = tuple(said["labels"])
        return cls(**said)

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
        """The positions of the labels that have a score: the positive one of two, or every one of many."""
        if not self.bins:
            return ()
        return (1,) if self.task == "binary" else tuple(range(len(self.labels)))

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """Where the parts begin. Divided one by one, so that 0.29 is the number that 0.29 is read as."""
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
