"""The seam of aggregation rules: a rule is a function of a matrix whose rows are the updates.

The matrix (updates × parameters) is never built. A rule has two steps: in `measure` it may ask for facts about whole
rows (squared norms, the Gram matrix) and make a decision; in `combine` it turns one block of columns into one row of
the result. The engine calls `combine` for blocks in any order and from several threads or machines. Blocks never depend
on each other, so the result has the same bits however the work is shared out.

A row is the change that a client made: its weights minus the weights that it trained from. The result of `combine` is
the step that the model takes. Only the stepped arrays are columns of the matrix. Integers and booleans (a batch
counter, say) are always sent as values; the engine takes the mean or median of them and of averaged arrays.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fma_core.arrays.spec import Spec
from fma_core.parameters import CheckedPart
from fma_core.registry import Registry

MAX_NUM_EXAMPLES = 2**53  # exact in float64, in which the weights are summed

Float64 = NDArray[np.float64]
Floats = NDArray[Any]
DecisionT = TypeVar("DecisionT")
UpdateKind = Literal["weights", "delta"]


class Block(Protocol):
    """Some columns of all rows. The caller may keep and change every array that it returns."""

    @property
    def num_rows(self) -> int: ...

    @property
    def num_columns(self) -> int: ...

    @property
    def place(self) -> int:
        """The number of the first column; the next have the next numbers, and no column of another block has one."""

    def row(self, index: int) -> Float64:
        """One row of the block: (columns,)."""

    def matrix(self) -> Float64:
        """The block as (rows, columns). Only for rules with `needs_matrix`: their blocks are narrow enough for it."""

    def sorted_columns(self, rows: Sequence[int] | None = None) -> Floats:
        """The values of each column, sorted in ascending order: (columns, rows), float32 or float64.

        rows: the rows to take; all of them when it is None.
        Only for rules with `needs_matrix`.
        """

    def order_statistics(self, ranks: slice = slice(None), rows: Sequence[int] | None = None) -> Floats:
        """The sorted values, transposed: (ranks, columns). Cheaper than `sorted_columns`, most of all for few ranks.

        Add them row by row: along this axis, numpy's order of addition depends on the number of columns.
        """

    def weighted_sum(self, weights: Sequence[float] | Float64) -> Float64:
        """Σ weights[i] · row i, added in the order of the rows: (columns,). A row of weight 0 is not read."""

    def state(self, name: str) -> Float64:
        """The columns of the rule's own state of this name: (columns,). Changes to it are kept."""

    def payload(self, name: str) -> Block:
        """The same columns of the arrays that the clients sent beside their weights under this name."""


class Rows(Protocol):
    """All the rows, for `measure`. Sums over columns are added in one fixed order, whatever the number of threads."""

    @property
    def num_rows(self) -> int: ...

    @property
    def num_columns(self) -> int:
        """The number of stepped parameters of the model; 0 is possible."""

    @property
    def num_examples(self) -> tuple[int, ...]:
        """The number of examples that each client trained on."""

    @property
    def staleness(self) -> tuple[int, ...]:
        """The number of aggregates published since the one that each update was trained from."""

    @property
    def discounts(self) -> Float64 | None:
        """The factors of the model's staleness function: (rows,), each in (0, 1]; None when the model has none."""

    @property
    def clients(self) -> tuple[str, ...]:
        """The client that sent each row."""

    @property
    def num_clients(self) -> int:
        """The number of clients of the model, whether they answered or not."""

    @property
    def round_number(self) -> int: ...

    def metric(self, name: str) -> Float64:
        """The numbers that the clients reported under a name of `required_metrics`: (rows,)."""

    def squared_norms(self) -> Float64:
        """‖row‖² of each row: (rows,)."""

    def gram(self) -> Float64:
        """The inner products of the rows: (rows, rows), read-only. Computed once and kept.

        For a rule that `measures_distances` and is translation equivariant they may be those of the differences from
        one of the rows, whose distances are the same and have more exact digits.
        """

    def reduce(self, measure: Callable[[Block], Float64]) -> Float64 | None:
        """The sum of `measure(block)` over all columns; None when there are none. `measure` must pickle."""


@dataclass(frozen=True)
class RowWeights:
    """The use that a rule made of its rows: its answer is Σ values[i] · row i, beside what its states add.

    values: (rows,), 0 or more each; NaN for a row that counts for more in one coordinate than in another.
    is_clipped: the rows that were shortened. is_rejected: those that were left out; None for those of weight 0.
    """

    values: Float64
    is_clipped: NDArray[np.bool_] | None = None
    is_rejected: NDArray[np.bool_] | None = None


class Aggregator(CheckedPart, ABC, Generic[DecisionT]):
    """An aggregation rule; its subclasses are frozen dataclasses whose fields are its parameters.

    >>> import numpy as np
    >>> from dataclasses import dataclass
    >>> from fma_core.in_memory import fold_arrays
    >>> @dataclass(frozen=True)
    ... class Sum(Aggregator[None]):
    ...     def combine(self, block, decision):
    ...         return block.weighted_sum(np.ones(block.num_rows))
    >>> fold_arrays(Sum(), [{"w": np.array([1.0])}, {"w": np.array([2.0])}])["w"]
    array([3.])
    """

    # Shown to people: the publication, and the smallest number of updates as a formula.
    source: ClassVar[str] = ""
    minimum: ClassVar[str] = "1"

    # Whether `combine` asks for the matrix or for sorted columns. Its blocks are narrow, so that all rows fit the
    # cache.
    needs_matrix: ClassVar[bool] = False
    # Whether shifting every row by the same vector shifts the answer by that vector.
    is_translation_equivariant: ClassVar[bool] = False
    # Whether it decides by the Gram matrix; its rows are then changes, wherever the base of an update is known.
    measures_distances: ClassVar[bool] = False
    # Whether the attackers that it bears are bounded by their share of the examples; otherwise of the rows.
    bears_by_examples: ClassVar[bool] = False
    # Whether, without stages and an optimiser, its rows are the weights that were sent and not the changes.
    acts_on_weights: ClassVar[bool] = False
    # A row is the difference from the weights that its client trained from, or from those that the round starts from.
    relative_to: ClassVar[Literal["base", "start"]] = "base"
    # Integers, booleans and averaged arrays become their mean, weighted by `integer_weights`, or their median.
    integers: ClassVar[Literal["mean", "median"]] = "median"

    # The other parts of a strategy that it can be combined with.
    update_kinds: ClassVar[tuple[UpdateKind, ...]] = ("weights", "delta")
    takes_staleness: ClassVar[bool] = False
    # Whether it weighs updates by their age, without a staleness function too.
    weighs_by_age: ClassVar[bool] = False
    takes_optimiser: ClassVar[bool] = True
    takes_clipped_rows: ClassVar[bool] = True
    takes_mixed_rows: ClassVar[bool] = True

    # Every update must have these numbers among its metrics, and arrays named "<payload>/<array>" beside its weights.
    required_metrics: ClassVar[tuple[str, ...]] = ()
    payloads: ClassVar[tuple[str, ...]] = ()
    # The one of these numbers by which an update lengthens the steps of all others.
    lengthening_metric: ClassVar[str] = ""

    @property
    def min_updates(self) -> int:
        """The smallest number of rows for which the rule is defined."""
        return 1

    @property
    def required_clients(self) -> tuple[str, ...]:
        """The clients whose updates the rule cannot do without."""
        return ()

    @property
    def states(self) -> Mapping[str, float]:
        """The arrays that it keeps from round to round, each like the model: names and initial values."""
        return {}

    @property
    def client_config(self) -> Mapping[str, Any]:
        """The settings that clients need to train for this rule."""
        return {}

    def check_metric(self, name: str, value: float) -> None:
        """Refuse a number that the rule cannot use: raises ValueError, which says what must hold."""

    def measure(self, rows: Rows) -> DecisionT:
        """Look at whole rows and decide what `combine` needs to know; by default, read and decide nothing."""
        return None  # type: ignore[return-value]

    @abstractmethod
    def combine(self, block: Block, decision: DecisionT) -> Float64:
        """The block's columns of the result: (columns,)."""

    def row_weights(self, decision: DecisionT, num_rows: int) -> RowWeights | None:
        """The weights that the rule gives to its rows; None for a rule that does not say, or has none."""
        return None

    def integer_weights(self, num_examples: Sequence[int]) -> Sequence[int]:
        """The weights with which integers, booleans and averaged arrays are averaged, before `discounts`."""
        return num_examples

    def discounts(self, rows: Rows) -> Float64 | None:
        """The factors of the updates by their age, in (0, 1], for integers, booleans and averaged arrays too.

        By default those of the model's staleness function, if it has one.
        """
        return rows.discounts

    def computed_arrays(self, spec: Spec) -> Mapping[str, Sequence[str]]:
        """The arrays that clients do not send, each with the arrays that `compute` derives it from.

        Raises InvalidStrategy for a model that the rule cannot aggregate.
        """
        return {}

    def compute(
        self, array: str, sources: Sequence[str], first: int, last: int, arrays: ArrayReader
    ) -> Float64:
        """Rows `first` up to `last` of a computed array of the result; sources: its names in `computed_arrays`."""
        raise NotImplementedError


class ArrayReader(Protocol):
    """Whole arrays of the updates and of the model before and after the round, in float64."""

    @property
    def num_examples(self) -> tuple[int, ...]: ...

    def sent(self, update: int, array: str, first: int = 0, last: int | None = None) -> Float64:
        """An array of one update, or its rows from `first` up to `last`."""

    def before(self, array: str, first: int = 0, last: int | None = None) -> Float64:
        """An array of the model that the round starts from, or its rows from `first` up to `last`."""

    def after(self, array: str, first: int = 0, last: int | None = None) -> Float64:
        """An array of the result as it is published, rounded to its dtype; not one that is computed itself."""


aggregators: Registry[Aggregator[Any]] = Registry("aggregator", "fma.aggregators")
