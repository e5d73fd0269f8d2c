"""Whole arrays of the files of a round, for rules that derive one array from others."""

from __future__ import annotations

import math

import numpy as np

from fma_core.aggregation.aggregators import Float64
from fma_core.arrays.codecs.values import view_of
from fma_core.engine.job import Job
from fma_core.engine.weight_files import WeightFiles


class FileArrays:
    """The arrays that `Aggregator.compute` reads; the caller may change every array that it returns."""

    def __init__(self, job: Job) -> None:
        self._job = job

    @property
    def num_examples(self) -> tuple[int, ...]:
        return tuple(update.num_examples for update in self._job.updates)

    def sent(self, update: int, array: str, first: int = 0, last: int | None = None) -> Float64:
        start = self._job.layouts.update_starts[array]
        return self._read(self._job.update_files, update, start, array, first, last)

    def before(self, array: str, first: int = 0, last: int | None = None) -> Float64:
        start = self._job.layouts.model_starts[array]
        return self._read(self._job.start_file, 0, start, array, first, last)

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
