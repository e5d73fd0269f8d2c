"""The seam of aggregation rules: a rule is a function of a matrix whose rows are the updates.

The matrix (updates × parameters) is never built. A rule sees it twice at most: in `measure` it may ask for what is true
of whole rows (squared norms, the Gram matrix) and decide something from it; in `combine` it turns one block of columns
into one row of the result. The engine calls `combine` for blocks in any order and from several threads or machines;
blocks never depend on each other, which is why the result has the same bits however the work is shared out.

A row is what a client changed: its weights minus those that it trained from. What `combine` gives is the step that the
model takes. Only the floating-point arrays make up the matrix. Integers and booleans (a batch counter, say) are always
sent as values, and the engine takes their exact mean or median.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fma_core.arrays.spec import Spec
from fma_core.parameters import CheckedPart
from fma_core.registry import Registry

Float64 = NDArray[np.float64]
Floats = NDArray[Any]
DecisionT = TypeVar("DecisionT")
UpdateKind = Literal["weights", "delta"]


class Block(Protocol):
    """Some columns of all rows. Every array that it gives is the caller's to keep and to change."""

    @property
    def num_rows(self) -> int: ...

    @property
    def num_columns(self) -> int: ...

    def row(self, index: int) -> Float64:
        """One row of the block: (columns,)."""

    def matrix(self) -> Float64:
        """The block as (rows, columns). Only for rules with `needs_matrix`, whose blocks are narrow enough for it."""

    def sorted_columns(self, rows: Sequence[int] | None = None) -> Floats:
        """The values of each column in ascending order, of all rows or some: (columns, rows), float32 or float64.

        Only for rules with `needs_matrix`.
        """

    def order_statistics(self, ranks: slice = slice(None), rows: Sequence[int] | None = None) -> Floats:
        """The same the other way around, (ranks, columns), which costs less; less still for a few neighbouring ranks.

        Add them row by row: what numpy adds first along this axis depends on the number of columns.
        """

    def weighted_sum(self, weights: Sequence[float] | Float64) -> Float64:
        """Σ weights[i] · row i, added in the order of the rows: (columns,). A row of weight 0 is not read."""

    def state(self, name: str) -> Float64:
        """The columns of the rule's own state of this name: (columns,). What is written into it is kept."""

    def payload(self, name: str) -> Block:
        """The same columns of what the clients sent beside their weights under this name."""


class Rows(Protocol):
    """All the rows, for `measure`. Sums over columns are added in one fixed order, whatever the number of threads."""

    @property
    def num_rows(self) -> int: ...

    @property
    def num_columns(self) -> int:
        """How many floating-point parameters the model has; 0 is possible."""

    @property
    def num_examples(self) -> tuple[int, ...]:
        """How many examples each client trained on."""

    @property
    def staleness(self) -> tuple[int, ...]:
        """How many aggregates were published since the one that each update was trained from."""

    @property
    def discounts(self) -> Float64 | None:
        """What the model's staleness function makes of it: (rows,), each in (0, 1]; None when the model has none."""

    @property
    def clients(self) -> tuple[str, ...]:
        """Who sent each row."""

    @property
    def num_clients(self) -> int:
        """How many clients the model has, whether they answered or not."""

    @property
    def round_number(self) -> int: ...

    def metric(self, name: str) -> Float64:
        """What each client reported under a name of `required_metrics`: (rows,)."""

    def squared_norms(self) -> Float64:
        """‖row‖² of each row: (rows,)."""

    def gram(self) -> Float64:
        """The inner products of the rows: (rows, rows), read-only. Computed once, however often it is asked for."""

    def reduce(self, measure: Callable[[Block], Float64]) -> Float64 | None:
        """The sum of `measure(block)` over all columns; None when there are none. `measure` must pickle."""


class Aggregator(CheckedPart, ABC, Generic[DecisionT]):
    """An aggregation rule; its subclasses are frozen dataclasses whose fields are its parameters."""

    # What people are told of it: where it comes from, and its smallest number of updates as a formula.
    source: ClassVar[str] = ""
    minimum: ClassVar[str] = "1"

    # Whether `combine` asks for the matrix or for sorted columns: blocks are then narrow enough for all rows to fit the
    # cache.
    needs_matrix: ClassVar[bool] = False
    # Whether shifting every row by the same vector shifts the answer by that vector.
    is_translation_equivariant: ClassVar[bool] = False
    # Whether it decides by the Gram matrix; its rows are then what was changed wherever that is known.
    measures_distances: ClassVar[bool] = False
    # Whether, without stages and an optimiser, its rows are the weights that were sent rather than what was changed.
    acts_on_weights: ClassVar[bool] = False
    # What a row is measured from: the weights that the client trained from, or those that the round starts from.
    relative_to: ClassVar[Literal["base", "start"]] = "base"
    # What it does with integers and booleans: their mean, weighted by `integer_weights`, or their median.
    integers: ClassVar[Literal["mean", "median"]] = "median"

    # What it goes together with.
    update_kinds: ClassVar[tuple[UpdateKind, ...]] = ("weights", "delta")
    takes_staleness: ClassVar[bool] = False
    takes_optimiser: ClassVar[bool] = True
    takes_clipped_rows: ClassVar[bool] = True
    takes_mixed_rows: ClassVar[bool] = True

    # What it needs of each update: numbers among its metrics, and arrays named "<payload>/<array>" beside its weights.
    required_metrics: ClassVar[tuple[str, ...]] = ()
    payloads: ClassVar[tuple[str, ...]] = ()

    @property
    def min_updates(self) -> int:
        """The smallest number of rows for which the rule means anything."""
        return 1

    @property
    def required_clients(self) -> tuple[str, ...]:
        """Clients without whose update there is no answer."""
        return ()

    @property
    def states(self) -> Mapping[str, float]:
        """What it keeps from round to round, one array like the model each: its name and what fills it at first."""
        return {}

    @property
    def client_config(self) -> Mapping[str, Any]:
        """What clients must know to train for it."""
        return {}

    def check_metric(self, name: str, value: float) -> None:
        """Raises ValueError, which says what must hold, for a number that the rule can do nothing with."""

    def measure(self, rows: Rows) -> DecisionT:
        """Decide from whole rows what `combine` must know; by default nothing, and nothing is read."""
        return None  # type: ignore[return-value]

    @abstractmethod
    def combine(self, block: Block, decision: DecisionT) -> Float64:
        """The block's columns of the result: (columns,)."""

    def integer_weights(self, num_examples: Sequence[int]) -> Sequence[int]:
        """The weights with which integer and boolean arrays are averaged."""
        return num_examples

    def computed_arrays(self, spec: Spec) -> Mapping[str, Sequence[str]]:
        """Arrays that clients do not send, because `compute` derives them from others: from which, by name.

        Raises InvalidStrategy for a model that the rule can do nothing with.
        """
        return {}

    def compute(
        self, array: str, sources: Sequence[str], first: int, last: int, arrays: ArrayReader
    ) -> Float64:
        """Rows `first` up to `last` of a computed array of the result; sources: what `computed_arrays` says of it."""
        raise NotImplementedError


class ArrayReader(Protocol):
    """Whole arrays of the updates and of the model before the round, in float64."""

    @property
    def num_examples(self) -> tuple[int, ...]: ...

    def sent(self, update: int, array: str, first: int = 0, last: int | None = None) -> Float64:
        """An array of one update, or its rows from `first` up to `last`."""

    def before(self, array: str, first: int = 0, last: int | None = None) -> Float64:
        """The same of the model that the round starts from."""


aggregators: Registry[Aggregator[Any]] = Registry("aggregator", "fma.aggregators")
