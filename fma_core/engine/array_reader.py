"""Whole arrays of the files of a round, for rules that derive one array from others."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fma_core.aggregation.aggregators import Float64
from fma_core.arrays.codecs.values import view_of
from fma_core.engine.job import Job
from fma_core.engine.segments import Cut, Segment
from fma_core.engine.weight_files import WeightFiles


class FileArrays:
    """The arrays that `Aggregator.compute` reads; the caller may change every array that it returns.

    published: gives columns of the next model.
    """

    def __init__(self, job: Job, *, published: Callable[[Cut], NDArray[Any]]) -> None:
        self._job = job
        self._published = published

    @property
    def num_examples(self) -> tuple[int, ...]:
        return tuple(update.num_examples for update in self._job.updates)

    def sent(self, update: int, array: str, first: int = 0, last: int | None = None) -> Float64:
        start = self._job.layouts.update_starts[array]
        return self._read(self._job.update_files, update, start, array, first, last)

    def before(self, array: str, first: int = 0, last: int | None = None) -> Float64:
        start = self._job.layouts.model_starts[array]
        return self._read(self._job.start_file, 0, start, array, first, last)

    def after(self, array: str, first: int = 0, last: int | None = None) -> Float64:
        spec = self._job.layouts.spec.by_name[array]
        num_rows = (spec.shape[0] if last is None else last) - first
        row_columns = math.prod(spec.shape[1:])
        segment, start = self._place_of(array)
        start += first * row_columns
        values = self._published(Cut(segment, start, start + num_rows * row_columns))
        return values.astype(np.float64).reshape(num_rows, *spec.shape[1:])

    def _place_of(self, array: str) -> tuple[Segment, int]:
        """The segment of an array, and its first column there."""
        for segment in self._job.segments:
            column = 0
            for each in segment.arrays:
                if each.name == array:
                    return segment, column
                column += each.num_parameters
        raise KeyError(array)

    def _read(
        self, files: WeightFiles, index: int, start: int, array: str, first: int, last: int | None
    ) -> Float64:
        spec = self._job.layouts.spec.by_name[array]
        row_shape = spec.shape[1:]
        num_rows = (spec.shape[0] if last is None else last) - first
        row_bytes = math.prod(row_shape) * spec.numpy_dtype.itemsize
        buffer = np.empty(num_rows * row_bytes, np.uint8)
        files.read_into(index, buffer.data, start + first * row_bytes)
        return view_of(buffer.data, spec.dtype).astype(np.float64).reshape(num_rows, *row_shape)
