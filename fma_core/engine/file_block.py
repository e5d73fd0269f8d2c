"""Blocks over the files of a round: some columns of all rows, for aggregation rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fma_core import kernels
from fma_core.aggregation.aggregators import Block, Float64
from fma_core.aggregation.aggregators.aggregator import Floats
from fma_core.arrays.codecs.values import view_of
from fma_core.arrays.dtypes import NUMPY_DTYPES
from fma_core.engine import widths
from fma_core.engine.job import Job, buffers
from fma_core.engine.segments import STATE_DTYPE, Cut
from fma_core.engine.weight_files import WeightFiles


class FileBlock:
    """Some columns of all updates, read row by row into one reused buffer per thread.

    payload: read the arrays sent under this name instead of the weights.
    states: the columns of the rule's state, which it may change.
    of_values: its rows are values of arrays, whatever was sent, and not changes.
    """

    def __init__(
        self,
        job: Job,
        part: Cut,
        *,
        payload: str | None = None,
        states: dict[str, Float64] | None = None,
        of_values: bool = False,
    ) -> None:
        self._job = job
        self._cut = part
        self._states = states or {}
        segment = part.segment
        self._start = segment.update_start if payload is None else segment.payload_starts[payload]
        # A payload is not a change of weights: nothing is subtracted from it.
        self._base_of = job.base_of if payload is None else (-1,) * len(job.base_of)
        self._move: np.ufunc = np.add if of_values else np.subtract
        self._of_values = of_values
        if of_values:
            self._base_of = job.origin_of

    @property
    def num_rows(self) -> int:
        return len(self._job.updates)

    @property
    def num_columns(self) -> int:
        return self._cut.num_columns

    @property
    def place(self) -> int:
        # A segment has at least as many bytes as columns, so that the next one begins behind.
        return self._cut.segment.model_start + self._cut.first

    def row(self, index: int) -> Float64:
        row = self.raw(index).astype(np.float64)
        base = self._base_of[index]
        if base >= 0:
            self._move(row, self._base(base), out=row)
        return row

    def matrix(self) -> Float64:
        matrix = kernels.padded_matrix(self.num_rows, self.num_columns, np.float64)
        np.copyto(matrix, self._raw_rows(range(self.num_rows)))
        for base, rows in self._rows_of_bases(range(self.num_rows)):
            matrix[rows] = self._move(matrix[rows], self._base(base))
        return matrix

    def gram(self, *, around: int | None = None) -> Float64:
        """The inner products of its rows, or of their differences from the row `around`: (rows, rows).

        Computed in tiles that stay in the second-level cache: writing a whole block in float64 and reading it again
        took as long as BLAS itself.
        """
        raw = self._raw_rows(range(self.num_rows))
        bases = [
            (rows, self._base(base).astype(np.float64))
            for base, rows in self._rows_of_bases(range(self.num_rows))
        ]
        total = np.zeros((self.num_rows, self.num_rows))
        width = widths.tile_columns(self.num_rows)
        for first in range(0, self.num_columns, width):
            part = raw[:, first : first + width]
            tile = buffers.take("tile", part.size * 8).view(np.float64).reshape(part.shape)
            np.copyto(tile, part)
            for rows, base in bases:
                tile[rows] = self._move(tile[rows], base[first : first + width])
            if around is not None:
                tile -= tile[around].copy()
            kernels.add_lower_gram(total, tile)
        return kernels.mirrored(total)

    def sorted_columns(self, rows: Sequence[int] | None = None) -> Floats:
        return np.ascontiguousarray(self.order_statistics(rows=rows).T)

    def order_statistics(self, ranks: slice = slice(None), rows: Sequence[int] | None = None) -> Floats:
        chosen = range(self.num_rows) if rows is None else rows
        matrix = self._raw_rows(chosen)
        if max(self._base_of) >= 0:
            matrix = matrix.astype(np.float64)
            for base, of_base in self._rows_of_bases(chosen):
                matrix[of_base] = self._move(matrix[of_base], self._base(base))
        elif matrix.itemsize < 4:
            # float32 holds every value of a narrower dtype exactly.
            matrix = matrix.astype(np.float32)
        return kernels.order_statistics(matrix, ranks)

    def weighted_sum(self, weights: Sequence[float] | Float64) -> Float64:
        dtype = NUMPY_DTYPES[self._cut.segment.dtype]
        buffer = buffers.take("sum", kernels.ScaledSum.size_bytes(self.num_columns, dtype))
        scaled = kernels.ScaledSum(self.num_columns, dtype, buffer)
        of_bases = [0.0] * (max(self._base_of) + 1)
        for index in range(self.num_rows):
            weight = float(weights[index])
            if weight == 0:
                continue
            self._read_into(scaled.room, self._job.update_files, index, self._start)
            scaled.add(weight)
            if self._base_of[index] >= 0:
                of_bases[self._base_of[index]] += weight
        for base, weight in enumerate(of_bases):
            if weight != 0:
                self._read_into(scaled.room, self._job.base_files, base, self._model_start)
                scaled.add(weight if self._of_values else -weight)
        total = scaled.total()
        if any(of_bases) and not self._of_values:
            self._mend_unchanged(total, weights)
        return total

    def _mend_unchanged(self, total: Float64, weights: Sequence[float] | Float64) -> None:
        """Sum the changes themselves where what is left of the sum of the weights may be rounding alone.

        Where nobody changed a parameter, the sum must be 0: an adaptive optimiser takes a whole step of any remainder.
        Everywhere else the bits stay those of one pass over the rows.
        """
        counted = [index for index in range(self.num_rows) if weights[index] != 0]
        size = np.zeros(self.num_columns)
        for base in range(max(self._base_of) + 1):
            weight = sum(abs(float(weights[index])) for index in counted if self._base_of[index] == base)
            values = self._base(base).astype(np.float64)
            size += np.multiply(np.abs(values, out=values), weight, out=values)
        # Two roundings for each row and each base: of the product, and of the sum.
        size *= (2 * len(counted) + 2) * np.finfo(np.float64).eps
        unclear = np.flatnonzero((np.abs(total) <= size) & (total != 0))
        if unclear.size == 0:
            return
        changes = np.zeros(unclear.size)
        for index in counted:
            changes += float(weights[index]) * self.row(index)[unclear]
        total[unclear] = changes

    def state(self, name: str) -> Float64:
        return self._states[name]

    def payload(self, name: str) -> Block:
        return FileBlock(self._job, self._cut, payload=name)

    def raw(self, index: int) -> NDArray[Any]:
        """One row in its own dtype, valid until the next is read."""
        return self._read(self._job.update_files, index, self._start)

    def start(self) -> NDArray[Any]:
        """The model before the round, in its own dtype, valid until the next row is read."""
        return self._read(self._job.start_file, 0, self._model_start)

    def _base(self, index: int) -> NDArray[Any]:
        return self._read(self._job.base_files, index, self._model_start)

    @property
    def _model_start(self) -> int:
        return self._cut.segment.model_start

    def _rows_of_bases(self, indices: Sequence[int]) -> Iterator[tuple[int, NDArray[np.intp]]]:
        """Each base, and the rows whose changes are measured from it."""
        bases = np.take(self._base_of, indices)
        for base in range(max(self._base_of) + 1):
            yield base, np.flatnonzero(bases == base)

    def _raw_rows(self, indices: Sequence[int]) -> NDArray[Any]:
        """Rows in their own dtype, valid until others are read: (rows, columns)."""
        dtype = NUMPY_DTYPES[self._cut.segment.dtype]
        size_bytes = kernels.padded_size_bytes(len(indices), self.num_columns, dtype)
        matrix = kernels.padded_matrix(
            len(indices), self.num_columns, dtype, buffers.take("rows", size_bytes)
        )
        # Thousands of rows a second are read here: the loop does only what differs by row.
        offset = self._start + self._cut.first * matrix.itemsize
        for row, index in zip(matrix.view(np.uint8), indices, strict=True):
            self._job.update_files.read_into(index, row.data, offset)
        return matrix

    def _read(self, files: WeightFiles, index: int, start: int) -> NDArray[Any]:
        segment = self._cut.segment
        buffer = buffers.take("raw", self.num_columns * segment.item_size)
        self._read_into(buffer, files, index, start)
        return view_of(buffer.data, segment.dtype)

    def _read_into(self, room: NDArray[Any], files: WeightFiles, index: int, start: int) -> None:
        offset = start + self._cut.first * self._cut.segment.item_size
        files.read_into(index, room.view(np.uint8).data, offset)


class MixedBlock:
    """A block after the stages: its rows are weighted sums of the rows of another block."""

    def __init__(self, block: Block, matrix: Float64) -> None:
        self._block = block
        self._matrix = matrix

    @property
    def num_rows(self) -> int:
        return len(self._matrix)

    @property
    def num_columns(self) -> int:
        return self._block.num_columns

    @property
    def place(self) -> int:
        return self._block.place

    def row(self, index: int) -> Float64:
        return self._block.weighted_sum(self._matrix[index])

    def matrix(self) -> Float64:
        mixed: Float64 = np.matmul(self._matrix, self._block.matrix())
        return mixed

    def sorted_columns(self, rows: Sequence[int] | None = None) -> Floats:
        return np.ascontiguousarray(self.order_statistics(rows=rows).T)

    def order_statistics(self, ranks: slice = slice(None), rows: Sequence[int] | None = None) -> Floats:
        matrix = self._matrix if rows is None else self._matrix[list(rows)]
        return kernels.order_statistics(np.matmul(matrix, self._block.matrix()), ranks)

    def weighted_sum(self, weights: Sequence[float] | Float64) -> Float64:
        return self._block.weighted_sum(mixed_weights(weights, self._matrix))

    def state(self, name: str) -> Float64:
        return self._block.state(name)

    def payload(self, name: str) -> Block:
        return self._block.payload(name)


class StillBlock:
    """A block of updates that change nothing."""

    def __init__(self, num_rows: int, part: Cut, states: dict[str, Float64]) -> None:
        self.num_rows, self.num_columns = num_rows, part.num_columns
        self.place = part.segment.model_start + part.first
        self._states = states

    def row(self, index: int) -> Float64:
        return np.zeros(self.num_columns)

    def matrix(self) -> Float64:
        return np.zeros((self.num_rows, self.num_columns))

    def sorted_columns(self, rows: Sequence[int] | None = None) -> Floats:
        return np.ascontiguousarray(self.order_statistics(rows=rows).T)

    def order_statistics(self, ranks: slice = slice(None), rows: Sequence[int] | None = None) -> Floats:
        return np.zeros((self.num_rows if rows is None else len(rows), self.num_columns))[ranks]

    def weighted_sum(self, weights: Sequence[float] | Float64) -> Float64:
        return np.zeros(self.num_columns)

    def state(self, name: str) -> Float64:
        return self._states[name]

    def payload(self, name: str) -> Block:
        return self


def mixed_weights(weights: Sequence[float] | Float64, matrix: Float64) -> Float64:
    """Convert weights of the new rows into weights of the old ones."""
    mixed: Float64 = np.add.reduce(np.asarray(weights, np.float64)[:, None] * matrix, axis=0)
    return mixed


def read_states(job: Job, part: Cut) -> dict[str, Float64]:
    """The columns of every state: from the last aggregate's file, or the initial values."""
    states = {}
    for name, fill in job.strategy.states.items():
        if job.has_state:
            buffer = np.empty(part.num_columns, STATE_DTYPE)
            offset = part.segment.state_starts[name] + part.first * buffer.itemsize
            job.state_file.read_into(0, buffer.view(np.uint8).data, offset)
        else:
            buffer = np.full(part.num_columns, fill, STATE_DTYPE)
        states[name] = buffer
    return states
