"""One fold, with all the facts that a thread, process or machine needs to take part in it."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fma_core.aggregation.strategy import SENT, Strategy
from fma_core.arrays import dtypes
from fma_core.arrays.codecs.write_all import write_all
from fma_core.arrays.spec import Spec
from fma_core.engine.segments import STATE_DTYPE, Cut, Layouts, Segment, cut, segments_of
from fma_core.engine.weight_files import ModelFile, Source, UpdateFile, WeightFiles


class Output(Protocol):
    """A file that several threads or machines write, in any order. Outputs pickle."""

    def write(self, data: bytes | memoryview, offset: int) -> None: ...

    def close(self) -> None: ...


class Job:
    """The files of a round, and the strategy to fold them by; pickles without open files.

    updates: the rows, in the order in which they are added.
    start: the model that the round starts from, if there is one. state: the state of the last aggregate, if there is
    one.
    """

    def __init__(
        self,
        updates: Sequence[UpdateFile],
        *,
        spec: Spec,
        strategy: Strategy,
        start: ModelFile | None,
        state: ModelFile | None,
        out: Output,
        state_out: Output | None,
        num_clients: int,
        round_number: int,
    ) -> None:
        self.updates = tuple(updates)
        self.layouts = Layouts(spec, strategy)
        self.strategy = strategy
        self.out = out
        self.state_out = state_out
        self.num_clients = num_clients
        self.round_number = round_number
        self.has_start = start is not None
        self.has_state = state is not None
        self.rows_are_weights = strategy.acts_on_weights or start is None or self._may_shift(start)
        bases: list[ModelFile] = []
        self.base_of = self._find_bases(start, bases)
        self.origin_of = self._find_origins(start, bases)
        self.update_files = WeightFiles(self.updates, spec=self.layouts.update_spec)
        self.base_files = WeightFiles(bases, spec=spec)
        self.start_file = WeightFiles([start] if start is not None else [], spec=spec)
        state_spec = self.layouts.state_spec
        self.state_file = WeightFiles(
            [state] if state is not None else [], spec=spec if state_spec is None else state_spec
        )

    def __getstate__(self) -> dict[str, Any]:
        # Segments follow from the other attributes, and are large for models of many arrays.
        return {key: value for key, value in self.__dict__.items() if key not in {"segments", "_cuts"}}

    def __enter__(self) -> Job:
        try:
            for files in self._all_files:
                files.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for files in self._all_files:
            files.close()
        self.out.close()
        if self.state_out is not None:
            self.state_out.close()

    @property
    def written_state(self) -> Output:
        """The output of the state. Raises ValueError when a strategy keeps a state and there is no output."""
        if self.state_out is None:
            raise ValueError("this strategy keeps a state; it needs a state_out")
        return self.state_out

    @cached_property
    def segments(self) -> list[Segment]:
        return segments_of(self.layouts)

    def cuts(self, max_columns: int, *, of_rows_only: bool) -> list[Cut]:
        """The blocks of the rule's matrix, or of the whole model."""
        cuts = self._cuts.get((max_columns, of_rows_only))
        if cuts is None:
            segments = [segment for segment in self.segments if segment.is_row or not of_rows_only]
            cuts = self._cuts[max_columns, of_rows_only] = list(cut(segments, max_columns=max_columns))
        return cuts

    def fetch_ahead(self, part: Cut) -> None:
        """Announce that these columns will be read soon.

        The sources of computed and collected arrays are not known here.
        """
        segment = part.segment
        if segment.role == "collected":
            return
        starts = [(self.start_file, segment.model_start, segment.item_size)]
        if segment.role in SENT:
            starts.append((self.update_files, segment.update_start, segment.item_size))
            starts.append((self.base_files, segment.model_start, segment.item_size))
        starts += [(self.update_files, start, segment.item_size) for start in segment.payload_starts.values()]
        starts += [
            (self.state_file, start, dtypes.ITEM_SIZES[STATE_DTYPE])
            for start in segment.state_starts.values()
        ]
        for files, start, item_size in starts:
            files.fetch_ahead(start + part.first * item_size, start + part.last * item_size)

    @cached_property
    def _cuts(self) -> dict[tuple[int, bool], list[Cut]]:
        return {}

    @property
    def _all_files(self) -> tuple[WeightFiles, ...]:
        return self.update_files, self.base_files, self.start_file, self.state_file

    def _may_shift(self, start: ModelFile) -> bool:
        # Shifting all rows by one vector, and the answer back by it, gives the same numbers and reads less.
        return (
            self.strategy.is_translation_equivariant
            # Distances of whole weights lose digits: the squares of the common part of all rows are in them.
            and not self.strategy.measures_distances
            and self.strategy.update_kind == "weights"
            and all(update.base is None or update.base.path == start.path for update in self.updates)
        )

    def _find_bases(self, start: ModelFile | None, bases: list[ModelFile]) -> tuple[int, ...]:
        """The base to subtract from each row, as an index into `bases`, or -1; it appends the bases to `bases`."""
        if self.rows_are_weights or self.strategy.update_kind == "delta":
            return (-1,) * len(self.updates)
        return self._indices_of(bases, start, of_start=self.strategy.aggregator.relative_to == "start")

    def _find_origins(self, start: ModelFile | None, bases: list[ModelFile]) -> tuple[int, ...]:
        """The model to add to each update, which was sent as a change, to have its values; as `_find_bases`."""
        if not (self.strategy.update_kind == "delta" and self.strategy.reads_bases(self.layouts.spec)):
            return (-1,) * len(self.updates)
        return self._indices_of(bases, start, of_start=False)

    def _indices_of(
        self, bases: list[ModelFile], start: ModelFile | None, *, of_start: bool
    ) -> tuple[int, ...]:
        index_of: dict[Path | Source, int] = {}
        indices = []
        for update in self.updates:
            base = start if of_start or update.base is None else update.base
            if base is None:  # impossible: without a start the rows are the weights
                raise ValueError("this strategy needs a model to start from")
            if base.path not in index_of:
                index_of[base.path] = len(bases)
                bases.append(base)
            indices.append(index_of[base.path])
        return tuple(indices)


class FileOutput:
    """A file on this machine, or on a disk that all machines share."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None
        self._opening = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    def write(self, data: bytes | memoryview, offset: int) -> None:
        with self._opening:
            if self._fd is None:
                self._fd = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        write_all(self._fd, data, offset)

    def close(self) -> None:
        with self._opening:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None


class Buffers(threading.local):
    """Memory that each thread reuses for block after block."""

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[np.uint8]] = {}

    def take(self, name: str, size_bytes: int) -> NDArray[np.uint8]:
        array = self._arrays.get(name)
        if array is None or array.size < size_bytes:
            array = self._arrays[name] = np.empty(size_bytes, np.uint8)
        return array[:size_bytes]


buffers = Buffers()
