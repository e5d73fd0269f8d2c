"""The seam of stages: steps on the rows before the rule sees them.

A stage of rows is a linear map: each new row is a weighted sum of the old ones. Norm clipping scales rows;
nearest-neighbour mixing and bucketing average some of them. So a stage only decides a small matrix, and the engine
never stores a changed row. A stage of arrays chooses the arrays that take part at all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from fma_core.aggregation.aggregators.aggregator import Float64, Rows
from fma_core.parameters import CheckedPart
from fma_core.registry import Registry


@dataclass(frozen=True)
class RowMap:
    """New rows from old ones: new row i = Σ matrix[i, j] · row j, trained on num_examples[i] examples."""

    matrix: Float64
    num_examples: tuple[int, ...]


class Stage(CheckedPart, ABC):
    """A step before the rule; its subclasses are frozen dataclasses whose fields are its parameters."""

    source: ClassVar[str] = ""
    minimum: ClassVar[str | None] = None

    def min_updates(self, min_rows: int) -> int:
        """The number of updates that it needs to give the next step `min_rows` rows."""
        return min_rows


class RowStage(Stage):
    # Whether a new row combines several old ones, so that it belongs to no single client.
    mixes: ClassVar[bool] = True
    # Whether shifting all rows by a vector shifts all new rows by it too.
    is_translation_equivariant: ClassVar[bool] = False
    # Whether it decides by the Gram matrix; its rows are then changes, wherever the base of an update is known.
    measures_distances: ClassVar[bool] = False

    @abstractmethod
    def map_rows(self, rows: Rows) -> RowMap:
        """Decide the new rows from facts about the old ones."""


class ArrayStage(Stage):
    @abstractmethod
    def includes(self, array: str) -> bool:
        """Whether the array of this name is sent and aggregated."""


stages: Registry[Stage] = Registry("stage", "fma.stages")
