"""Receive weights from a stream or from memory into a canonical file, and check and hash them at the same time.

Memory holds a few pieces and the header, whatever the size of the body. A body with its arrays in the canonical order
(every file of FMA has it) is written as it arrives. Arrays in another order are written to their canonical offsets, and
the file is read once more for its hash. Quantised arrays are widened piece by piece.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Protocol

from fma_core.arrays import dtypes
from fma_core.arrays.codecs.body_sizes import largest_header_bytes
from fma_core.arrays.codecs.hashing_thread import HashingThread
from fma_core.arrays.codecs.header import (
    CanonicalForm,
    Entry,
    Header,
    canonical_entries,
    canonical_form,
    parse_header,
    read_exactly,
    read_head,
)
from fma_core.arrays.codecs.limits import DEFAULT_LIMITS, Limits
from fma_core.arrays.codecs.quantised import Widening, widened, widenings
from fma_core.arrays.codecs.safetensors import checked_bytes, layout_within
from fma_core.arrays.codecs.value_check import ValueCheck
from fma_core.arrays.codecs.values import bad_value, first_bad_value, view_of
from fma_core.arrays.codecs.write_all import write_all
from fma_core.arrays.codecs.write_behind import WriteBehind
from fma_core.arrays.codecs.zstd import decoded
from fma_core.arrays.spec import Arrays, Spec
from fma_core.errors import MalformedSafetensors, NonFiniteValue, TooLarge, TruncatedBody, ValueOutOfRange

# A few of these and the 8 MiB window of a compressed body take less than the 16 MiB of memory that a body may take.
PIECE_BYTES = 2**19
# An int8 becomes a float64 at most.
WIDENED_PIECE_BYTES = PIECE_BYTES // 8


@dataclass(frozen=True, slots=True)
class Received:
    """A canonical file: its spec, its hash and its size; `wire_sha256`: the hash of the received bytes, if wanted."""

    spec: Spec
    sha256: str
    size_bytes: int
    wire_sha256: str | None = None


def receive_canonical(body: bytes, spec: Spec, *, limits: Limits = DEFAULT_LIMITS) -> Received | None:
    """Check a body in memory that is the canonical file of this spec; None when it is another file.

    No JSON is parsed: the header of such a body is known to the last byte.
    """
    form = canonical_form(spec)
    if len(body) != form.size_bytes or not body.startswith(form.header):
        return None
    layout_within(spec, limits)
    data = memoryview(body)[len(form.header) :]
    for dtype, start, stop in form.runs:
        index = first_bad_value(view_of(data[start:stop], dtype), dtype)
        if index is not None:
            raise _bad_value_at(start + index * dtypes.ITEM_SIZES[dtype], form.entries)
    sha256 = hashlib.sha256(body).hexdigest()
    return Received(spec, sha256, len(body), wire_sha256=sha256)


def check_canonical(
    read: Callable[[int], bytes | memoryview],
    *,
    size_bytes: int,
    spec: Spec | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Received | None:
    """Check and hash a body that is in a file already; None when that is not a canonical file, of `spec` if given.

    read: as of `receive_safetensors`, which takes every other body; after None, only the header has been read.
    """
    head, header = _read_header(read, size_bytes, spec, limits)
    form = canonical_form(header.spec)
    if head != form.header or spec not in (None, header.spec):
        return None
    layout_within(header.spec, limits)
    with HashingThread() as digest:
        for _, piece in _same_pieces(read, form):
            digest.update(piece)
        sha256 = digest.hexdigest()
    return Received(header.spec, sha256, form.size_bytes, wire_sha256=sha256)


def receive_safetensors(
    read: Callable[[int], bytes | memoryview],
    out_fd: int,
    *,
    size_bytes: int,
    spec: Spec | None = None,
    limits: Limits = DEFAULT_LIMITS,
    is_zstd: bool = False,
    hash_wire: bool = True,
) -> Received:
    """Read exactly `size_bytes` of safetensors and write the canonical file to `out_fd`.

    read(n): returns at most n bytes (at most 1 MiB at a time after the header), and none at the end.
    out_fd: an empty file, open for reading and writing; its content is invalid after an error.
    spec: the expected arrays; a difference is raised before any byte of the data is read.
    is_zstd: whether the bytes are a zstd frame of the safetensors.
    hash_wire: whether to compute `wire_sha256`, which is free when the body is the canonical file itself.
    """
    with ExitStack() as stack:

        def new_hash() -> _Hash:
            return stack.enter_context(HashingThread()) if size_bytes > PIECE_BYTES else hashlib.sha256()

        wire: _Hash | None = None
        whole_bytes: int | None = size_bytes
        if is_zstd:
            _require_size(size_bytes, limits)
            if hash_wire:
                wire = new_hash()
                read = _hashed(read, wire)
            read, whole_bytes = decoded(read, size_bytes=size_bytes), None
        head, header = _read_header(read, whole_bytes, spec, limits)
        widening_of = widenings(header.spec, header.metadata, spec)
        received = widened(header.spec, widening_of)
        if spec is not None:
            spec.check(received)
        layout_within(received, limits)
        form = canonical_form(received)
        digest = new_hash() if _is_in_canonical_order(header, form) else None
        if hash_wire and not is_zstd:
            wire = digest if head == form.header else new_hash()
        if wire is not None and wire is not digest and not is_zstd:
            wire.update(head)
            read = _hashed(read, wire)
        if head == form.header:
            pieces = _same_pieces(read, form)
        else:
            pieces = _file_pieces(read, header.entries, form, widening_of, is_in_order=digest is not None)
        file = WriteBehind(out_fd)
        for offset, piece in pieces:
            if digest is not None:
                digest.update(piece)
            file.write(piece, offset)
        file.begin()
        if whole_bytes is None and read(1):
            raise MalformedSafetensors("more bytes follow the last array")
        return Received(
            received,
            sha256_of_file(out_fd) if digest is None else digest.hexdigest(),
            form.size_bytes,
            None if wire is None else wire.hexdigest(),
        )


def write_arrays(arrays: Arrays, out_fd: int, *, limits: Limits = DEFAULT_LIMITS) -> Received:
    """Write the canonical file of arrays in memory to `out_fd`, with the same checks of limits and values."""
    spec = Spec.of(arrays)
    header = layout_within(spec, limits)
    digest = hashlib.sha256(header)
    write_all(out_fd, header, 0)
    for entry in canonical_entries(spec):
        data = checked_bytes(entry.array, arrays[entry.array.name])
        digest.update(data)
        write_all(out_fd, data, len(header) + entry.start)
    return Received(spec, digest.hexdigest(), len(header) + spec.data_size_bytes)


def sha256_of_file(fd: int) -> str:
    """The SHA-256 of a whole file; its position does not change."""
    digest, offset = hashlib.sha256(), 0
    while piece := os.pread(fd, PIECE_BYTES, offset):
        digest.update(piece)
        offset += len(piece)
    return digest.hexdigest()


class _Hash(Protocol):
    def update(self, piece: bytes | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


def _require_size(size_bytes: int, limits: Limits) -> None:
    if size_bytes > limits.max_bytes:
        raise TooLarge(
            f"the body has {size_bytes} bytes; at most {limits.max_bytes} are accepted",
            found=size_bytes,
            limit=limits.max_bytes,
        )


def _hashed(read: Callable[[int], bytes | memoryview], digest: _Hash) -> Callable[[int], bytes | memoryview]:
    def read_and_hash(size: int) -> bytes | memoryview:
        piece = read(size)
        digest.update(piece)
        return piece

    return read_and_hash


def _read_header(
    read: Callable[[int], bytes | memoryview], size_bytes: int | None, spec: Spec | None, limits: Limits
) -> tuple[bytes, Header]:
    if spec is None:
        head = read_head(read, size_bytes=size_bytes, limits=limits)
        return head, parse_header(head, size_bytes=size_bytes, limits=limits)
    form = canonical_form(spec)
    # Parsed JSON takes up to twenty times its size, so a header may not be larger than this spec can need.
    limits = replace(limits, max_header_bytes=min(limits.max_header_bytes, largest_header_bytes(spec)))
    head = read_head(read, size_bytes=size_bytes, limits=limits)
    if head == form.header and size_bytes in (None, form.size_bytes):
        return head, Header(form.entries, len(head), spec)
    return head, parse_header(head, size_bytes=size_bytes, limits=limits)


def _is_in_canonical_order(header: Header, form: CanonicalForm) -> bool:
    # By name: narrower arrays have other offsets, but the same order. Empty arrays have no bytes and do not count.
    sent = [entry.array.name for entry in header.entries if entry.start < entry.stop]
    return sent == [entry.array.name for entry in form.entries if entry.start < entry.stop]


def _same_pieces(
    read: Callable[[int], bytes | memoryview], form: CanonicalForm
) -> Iterator[tuple[int, bytes | memoryview]]:
    """The checked pieces of a body that is the canonical file, each with its offset."""
    yield 0, form.header
    check, at = ValueCheck(form), len(form.header)
    while at < form.size_bytes:
        piece = read(min(PIECE_BYTES, form.size_bytes - at))
        if not piece:
            raise TruncatedBody("the body ended before its announced end")
        check(piece)
        yield at, piece
        at += len(piece)


def _file_pieces(
    read: Callable[[int], bytes | memoryview],
    entries: Sequence[Entry],
    form: CanonicalForm,
    widening_of: Mapping[str, Widening],
    *,
    is_in_order: bool,
) -> Iterator[tuple[int, bytes | memoryview]]:
    """The pieces of the canonical file, each with its offset, from the data of another one; the header comes first."""
    yield 0, form.header
    data_start = len(form.header)
    offsets = {entry.array.name: data_start + entry.start for entry in form.entries}
    piece_bytes = WIDENED_PIECE_BYTES if widening_of else PIECE_BYTES
    for start, inside, piece in _checked_pieces(read, entries, piece_bytes):
        if is_in_order and not widening_of:
            yield data_start + start, piece
            continue
        parts = [_part(entry, start, piece, offsets, widening_of) for entry in inside]
        if is_in_order:
            yield parts[0][0], b"".join(data for _, data in parts)
        else:
            yield from parts


def _part(
    entry: Entry,
    start: int,
    piece: memoryview,
    offsets: Mapping[str, int],
    widening_of: Mapping[str, Widening],
) -> tuple[int, memoryview]:
    """The part of one array in a piece, as it is stored, and its offset."""
    name = entry.array.name
    first, last = max(start, entry.start), min(start + len(piece), entry.stop)
    data, before = piece[first - start : last - start], first - entry.start
    if name in widening_of:
        widening, index = widening_of[name], before // dtypes.ITEM_SIZES[entry.array.dtype]
        data, before = widening(data, index), index * dtypes.ITEM_SIZES[widening.array.dtype]
    return offsets[name] + before, data


def _checked_pieces(
    read: Callable[[int], bytes | memoryview], entries: Sequence[Entry], piece_bytes: int
) -> Iterator[tuple[int, list[Entry], memoryview]]:
    """Give the data piece by piece: its start, the entries that have bytes in it, and its checked bytes.

    A piece ends between two values, so that every value is checked as a whole.
    """
    for start, stop, inside in _cut(entries, piece_bytes):
        piece = memoryview(read_exactly(read, stop - start))
        for run_start, run_stop, run in _runs_of_one_dtype(inside, start, stop):
            dtype = run[0].array.dtype
            index = first_bad_value(view_of(piece[run_start - start : run_stop - start], dtype), dtype)
            if index is not None:
                raise _bad_value_at(run_start + index * dtypes.ITEM_SIZES[dtype], run)
        yield start, inside, piece


def _bad_value_at(at: int, entries: Sequence[Entry]) -> NonFiniteValue | ValueOutOfRange:
    entry = next(entry for entry in entries if at < entry.stop)
    dtype = entry.array.dtype
    return bad_value(entry.array.name, (at - entry.start) // dtypes.ITEM_SIZES[dtype], dtype)


def _cut(entries: Sequence[Entry], piece_bytes: int) -> Iterator[tuple[int, int, list[Entry]]]:
    start, inside = 0, []
    for entry in entries:
        if entry.start == entry.stop:
            continue
        inside.append(entry)
        while entry.stop - start >= piece_bytes:
            stop = start + piece_bytes
            stop -= (stop - entry.start) % dtypes.ITEM_SIZES[entry.array.dtype]
            yield start, stop, inside
            start, inside = stop, ([entry] if stop < entry.stop else [])
    if inside:
        yield start, inside[-1].stop, inside


def _runs_of_one_dtype(
    entries: Sequence[Entry], start: int, stop: int
) -> Iterator[tuple[int, int, Sequence[Entry]]]:
    first = 0
    for i in range(1, len(entries) + 1):
        if i == len(entries) or entries[i].array.dtype != entries[first].array.dtype:
            run = entries[first:i]
            yield max(start, run[0].start), min(stop, run[-1].stop), run
            first = i
