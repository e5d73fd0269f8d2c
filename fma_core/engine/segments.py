"""Segments: byte ranges of the files of a round that belong together, and their cuts into blocks of columns.

An array has one offset in a model's file, another one in an update's (personal arrays are not sent), and one more for
every payload and every state. A segment is a run of arrays of one dtype that are neighbours in all these files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from fma_core.aggregation.strategy import SENT, Role, Strategy, payload_name, state_name
from fma_core.arrays import dtypes
from fma_core.arrays.codecs.header import canonical_entries, canonical_header
from fma_core.arrays.spec import ArraySpec, Spec
from fma_core.engine.widths import STREAM_COLUMNS

STATE_DTYPE = "float64"
# Roles whose arrays are segments of their own, made row by row.
BY_ROW: frozenset[Role] = frozenset({"computed", "collected"})


@dataclass(frozen=True)
class Layouts:
    """The offsets of a model's arrays in its own files, in those of its updates, and in those of its state."""

    spec: Spec
    strategy: Strategy

    @cached_property
    def roles(self) -> Mapping[str, Role]:
        return self.strategy.roles(self.spec)

    @cached_property
    def computed(self) -> Mapping[str, Sequence[str]]:
        return self.strategy.aggregator.computed_arrays(self.spec)

    @cached_property
    def update_spec(self) -> Spec:
        return self.strategy.update_spec(self.spec)

    @cached_property
    def state_spec(self) -> Spec | None:
        return self.strategy.state_spec(self.spec)

    @cached_property
    def model_starts(self) -> Mapping[str, int]:
        return _starts(self.spec)

    @cached_property
    def update_starts(self) -> Mapping[str, int]:
        return _starts(self.update_spec)

    @cached_property
    def state_starts(self) -> Mapping[str, int]:
        return {} if self.state_spec is None else _starts(self.state_spec)


@dataclass(frozen=True)
class Segment:
    """Neighbouring arrays of one dtype and one role: `num_columns` values, and their offset in each file.

    holds_variances: whether no value of the result may be negative.
    """

    dtype: str
    role: Role
    arrays: tuple[ArraySpec, ...]
    num_columns: int
    model_start: int
    update_start: int
    payload_starts: Mapping[str, int]
    state_starts: Mapping[str, int]
    holds_variances: bool

    @property
    def is_float(self) -> bool:
        return self.dtype in dtypes.FLOATS

    @property
    def is_row(self) -> bool:
        """Whether its columns are part of the rule's matrix."""
        return self.role == "stepped"

    @property
    def item_size(self) -> int:
        return dtypes.ITEM_SIZES[self.dtype]

    @property
    def row_columns(self) -> int:
        """The number of columns that are made together."""
        if self.role not in BY_ROW or not self.arrays[0].shape:
            return 1
        return self.num_columns // self.arrays[0].shape[0]

    def array_at(self, column: int) -> str:
        """The name of the array that holds a column of the segment."""
        for array in self.arrays:
            column -= array.num_parameters
            if column < 0:
                return array.name
        raise IndexError(column)


@dataclass(frozen=True, slots=True)
class Cut:
    """The columns from `first` up to `last` (not included) of a segment."""

    segment: Segment
    first: int
    last: int

    @property
    def num_columns(self) -> int:
        return self.last - self.first


def segments_of(layouts: Layouts) -> list[Segment]:
    """The segments of a model, in the order of its file. Models have thousands of arrays, but few changes of dtype."""
    runs: list[list[ArraySpec]] = []
    for array in layouts.spec.arrays:
        if array.num_parameters == 0:
            continue
        if runs and _are_neighbours(runs[-1][-1], array, layouts):
            runs[-1].append(array)
        else:
            runs.append([array])
    return [_segment(run, layouts) for run in runs]


def cut(segments: Sequence[Segment], *, max_columns: int) -> Iterator[Cut]:
    """Cut segments into blocks of nearly equal width, so that no thread has a whole block left at the end.

    Computed and collected arrays are cut between their rows: a row may need whole rows of other arrays, or be of one
    update. They are always cut in the same way: the last bits of a matrix product depend on its shape.
    """
    for segment in segments:
        unit = segment.row_columns
        num_units = segment.num_columns // unit
        limit = STREAM_COLUMNS if segment.role in BY_ROW else max_columns
        num_blocks = -(-num_units // max(1, limit // unit))
        width = -(-num_units // num_blocks) * unit
        for first in range(0, segment.num_columns, width):
            yield Cut(segment, first, min(first + width, segment.num_columns))


def _are_neighbours(array: ArraySpec, following: ArraySpec, layouts: Layouts) -> bool:
    role = layouts.roles[array.name]
    if role != layouts.roles[following.name] or role in BY_ROW or array.dtype != following.dtype:
        return False
    if _holds_variances(array, layouts) != _holds_variances(following, layouts):
        return False
    if role == "kept":
        return layouts.model_starts[following.name] == layouts.model_starts[array.name] + array.size_bytes
    payloads = layouts.strategy.aggregator.payloads if role == "stepped" else ()
    states = layouts.strategy.states if role == "stepped" else ()
    state_bytes = array.num_parameters * dtypes.ITEM_SIZES[STATE_DTYPE]
    return (
        layouts.model_starts[following.name] == layouts.model_starts[array.name] + array.size_bytes
        and layouts.update_starts[following.name] == layouts.update_starts[array.name] + array.size_bytes
        and all(
            layouts.update_starts[payload_name(payload, following.name)]
            == layouts.update_starts[payload_name(payload, array.name)] + array.size_bytes
            for payload in payloads
        )
        and all(
            layouts.state_starts[state_name(state, following.name)]
            == layouts.state_starts[state_name(state, array.name)] + state_bytes
            for state in states
        )
    )


def _segment(run: Sequence[ArraySpec], layouts: Layouts) -> Segment:
    first = run[0]
    role = layouts.roles[first.name]
    is_row = role == "stepped"
    strategy = layouts.strategy
    return Segment(
        dtype=first.dtype,
        role=role,
        arrays=tuple(run),
        num_columns=sum(array.num_parameters for array in run),
        model_start=layouts.model_starts[first.name],
        update_start=layouts.update_starts[first.name] if role in SENT else -1,
        payload_starts={
            payload: layouts.update_starts[payload_name(payload, first.name)]
            for payload in (strategy.aggregator.payloads if is_row else ())
        },
        state_starts={
            state: layouts.state_starts[state_name(state, first.name)]
            for state in (strategy.states if is_row else ())
        },
        holds_variances=_holds_variances(first, layouts),
    )


def _holds_variances(array: ArraySpec, layouts: Layouts) -> bool:
    is_new = layouts.roles[array.name] in SENT and array.dtype in dtypes.FLOATS
    return is_new and layouts.strategy.policies.is_variance(array.name)


def _starts(spec: Spec) -> dict[str, int]:
    """The offset of each array in a canonical file."""
    header = len(canonical_header(spec))
    return {entry.array.name: header + entry.start for entry in canonical_entries(spec)}
