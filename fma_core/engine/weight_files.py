"""The stored files of a round, as rows that can be read at any offset.

A round may have more updates than a process may have open files. Half of that limit is used for files that stay open.
The others are opened for each read, which takes some microseconds, little beside reading a block.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fma_core.arrays.codecs.header import canonical_header
from fma_core.arrays.spec import Spec
from fma_core.errors import AggregationError, UnreadableModel, UnreadableUpdate

MIN_OPEN_FILES = 64
MAX_OPEN_FILES = 8192


class OpenFile(Protocol):
    """A canonical file that several threads read at the same time."""

    @property
    def size_bytes(self) -> int: ...

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill the buffer, or its beginning, with the bytes from `offset` on; return their number, 0 at the end."""

    def close(self) -> None: ...


class Source(Protocol):
    """The place of a canonical file that is not on this machine's disk. Sources pickle and compare."""

    def open(self) -> OpenFile:
        """Open the file. Raises OSError."""

    def fetch_ahead(self, start: int, stop: int) -> None:
        """Begin to fetch the bytes [start, stop), which will be read soon; a fast source does nothing."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A canonical file of a model's weights or state, and a name for error messages."""

    path: Path | Source
    label: str


@dataclass(frozen=True, slots=True)
class UpdateFile:
    """One update: its canonical file, the facts about it, and a name for error messages.

    num_examples: the number of examples that it was trained on, 0 or more.
    base: the weights that it was trained from; None for those that the round starts from.
    staleness: the number of aggregates published since its base. metrics: numbers that the client reported.
    """

    path: Path | Source
    num_examples: int
    label: str
    base: ModelFile | None = None
    staleness: int = 0
    client: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if type(self.num_examples) is not int or self.num_examples < 0:
            raise ValueError(f"num_examples must be an integer of 0 or more, found {self.num_examples!r}")
        if type(self.staleness) is not int or self.staleness < 0:
            raise ValueError(f"staleness must be an integer of 0 or more, found {self.staleness!r}")


class WeightFiles:
    """Files of one spec; opening a file checks that it is a canonical file of that spec.

    Pickles without open files: another process opens them when it first reads.
    """

    def __init__(self, files: Sequence[UpdateFile] | Sequence[ModelFile], *, spec: Spec) -> None:
        self._files: tuple[UpdateFile | ModelFile, ...] = tuple(files)
        self._header = canonical_header(spec)
        self._size_bytes = len(self._header) + spec.data_size_bytes
        self._open: list[OpenFile] = []

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": []}

    def open(self) -> None:
        """Open and check all of them. Raises UnreadableUpdate or UnreadableModel."""
        keep = _files_left() // 2
        header = bytearray(len(self._header))
        try:
            for index in range(len(self._files)):
                opened = self._open_one(index)
                try:
                    # A file of another size or a changed header is detected here, before anything is computed.
                    self._fill(opened, index, memoryview(header), 0)
                    if header != self._header:
                        raise self._unreadable(
                            index, "does not begin with the canonical header of the model's spec"
                        )
                except BaseException:
                    opened.close()
                    raise
                if index < keep:
                    self._open.append(opened)
                else:
                    opened.close()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        while self._open:
            self._open.pop().close()

    def read_into(self, index: int, buffer: memoryview, offset: int) -> None:
        """Fill the buffer with the bytes of one file from `offset` on. Threads may read at the same time."""
        if index < len(self._open):
            self._fill(self._open[index], index, buffer, offset)
            return
        opened = self._open_one(index)
        try:
            self._fill(opened, index, buffer, offset)
        finally:
            opened.close()

    def fetch_ahead(self, start: int, stop: int) -> None:
        """Announce that these bytes of all files will be read soon."""
        for file in self._files:
            if not isinstance(file.path, Path):
                file.path.fetch_ahead(start, stop)

    def _open_one(self, index: int) -> OpenFile:
        path = self._files[index].path
        try:
            opened: OpenFile = _LocalFile(path) if isinstance(path, Path) else path.open()
        except OSError as error:
            raise self._unreadable(index, f"cannot be opened: {error.strerror}") from error
        if opened.size_bytes != self._size_bytes:
            opened.close()
            raise self._unreadable(index, f"must have {self._size_bytes} bytes, found {opened.size_bytes}")
        return opened

    def _fill(self, opened: OpenFile, index: int, buffer: memoryview, offset: int) -> None:
        while True:
            try:
                count = opened.read_into(buffer, offset)
            except OSError as error:
                raise self._unreadable(index, f"cannot be read: {error.strerror}") from error
            if count == len(buffer):
                return
            if count == 0:
                raise self._unreadable(index, f"ended early, at byte {offset}")
            buffer, offset = buffer[count:], offset + count

    def _unreadable(self, index: int, what: str) -> AggregationError:
        # Without the path: clients see this sentence. The error's cause has the path, for the log.
        file = self._files[index]
        if isinstance(file, UpdateFile):
            return UnreadableUpdate(f"the file of update {file.label} {what}", label=file.label)
        return UnreadableModel(f"the file of {file.label} {what}", label=file.label)


class _LocalFile:
    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size_bytes = os.fstat(self._fd).st_size

    def read_into(self, buffer: memoryview, offset: int) -> int:
        return os.preadv(self._fd, [buffer], offset)

    def close(self) -> None:
        os.close(self._fd)


def _files_left() -> int:
    try:
        import resource  # not on Windows, where the client library runs too
    except ImportError:  # pragma: no cover
        return MIN_OPEN_FILES
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MAX_OPEN_FILES
    try:
        in_use = len(list(Path("/proc/self/fd").iterdir()))
    except OSError:  # pragma: no cover  no /proc
        in_use = MIN_OPEN_FILES
    return min(MAX_OPEN_FILES, max(0, limit - in_use))
