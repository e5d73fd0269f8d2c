"""The header of a safetensors file: checked strictly when read, and written in one canonical form.

A file is an 8-byte little-endian length, that many bytes of JSON, and the data of the arrays without holes.
The format does not fix the order of the arrays or the spelling of the JSON. The canonical form fixes both: names
sorted, data in that order, JSON without blanks and padded so that the data starts at a multiple of 8. Two files of the
same spec then have the same header, byte for byte, and every array at the same offset.
Source: https://github.com/huggingface/safetensors (format).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

from fma_core.arrays import dtypes
from fma_core.arrays.codecs.limits import DEFAULT_LIMITS, Limits
from fma_core.arrays.spec import MAX_ARRAY_BYTES, ArraySpec, Spec
from fma_core.errors import InvalidSpec, MalformedSafetensors, TooLarge, TruncatedBody

LENGTH_BYTES = 8
ALIGNMENT = 8
PIECE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Entry:
    """An array and the range of its bytes, counted from the start of the data."""

    array: ArraySpec
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Header:
    """A checked header: the data of `entries` follows in this order and without holes from `data_start` on."""

    entries: tuple[Entry, ...]
    data_start: int
    spec: Spec
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CanonicalForm:
    """The form of every stored file of a spec.

    entries: the range of each array after the header. runs: dtype, start and stop of neighbours of one dtype.
    """

    header: bytes
    entries: tuple[Entry, ...]
    runs: tuple[tuple[str, int, int], ...]
    size_bytes: int


# Made once for each spec in use: a header of a hundred arrays takes longer than storing a small body.
_FORMS: WeakKeyDictionary[Spec, CanonicalForm] = WeakKeyDictionary()


def canonical_form(spec: Spec) -> CanonicalForm:
    """The canonical form of a spec's files."""
    form = _FORMS.get(spec)
    if form is None:
        entries = _canonical_entries(spec)
        header = encoded_header(entries)
        form = _FORMS[spec] = CanonicalForm(
            header, entries, _runs(entries), len(header) + spec.data_size_bytes
        )
    return form


def canonical_header(spec: Spec) -> bytes:
    """The length and the JSON with which every stored file of this spec begins."""
    return canonical_form(spec).header


def canonical_entries(spec: Spec) -> tuple[Entry, ...]:
    """The range of each array of the spec in a canonical file."""
    return canonical_form(spec).entries


def encoded_header(entries: Iterable[Entry], metadata: Mapping[str, str] | None = None) -> bytes:
    """The length and the JSON of a header, in the canonical spelling."""
    fields: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    for entry in entries:
        fields[entry.array.name] = {
            "dtype": dtypes.TAGS[entry.array.dtype],
            "shape": entry.array.shape,
            "data_offsets": (entry.start, entry.stop),
        }
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(LENGTH_BYTES + len(text)) % ALIGNMENT)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def read_header(
    read: Callable[[int], bytes | memoryview], *, size_bytes: int | None, limits: Limits = DEFAULT_LIMITS
) -> Header:
    """Read and check the header of a body of `size_bytes`; nothing after the header is read.

    read(n): returns at most n bytes, and none at the end.
    Raises TooLarge, TruncatedBody or MalformedSafetensors before memory of the size that the header claims is
    allocated.
    """
    return parse_header(
        read_head(read, size_bytes=size_bytes, limits=limits), size_bytes=size_bytes, limits=limits
    )


def read_head(read: Callable[[int], bytes | memoryview], *, size_bytes: int | None, limits: Limits) -> bytes:
    """Read the bytes of a header, its length included, without parsing them.

    size_bytes: the size of the whole body; None when it is known only at the end (a compressed body).
    """
    if size_bytes is not None and size_bytes > limits.max_bytes:
        raise TooLarge(
            f"the body has {size_bytes} bytes; at most {limits.max_bytes} are accepted",
            found=size_bytes,
            limit=limits.max_bytes,
        )
    if size_bytes is not None and size_bytes < LENGTH_BYTES:
        raise MalformedSafetensors(
            f"a safetensors body begins with {LENGTH_BYTES} bytes of length; the whole body has {size_bytes}"
        )
    start = read_exactly(read, LENGTH_BYTES)
    length = int.from_bytes(start, "little")
    if size_bytes is not None and length > size_bytes - LENGTH_BYTES:
        raise MalformedSafetensors(
            f"the header claims {length} bytes; only {size_bytes - LENGTH_BYTES} follow its length",
            found=length,
        )
    if length > limits.max_header_bytes:
        raise TooLarge(
            f"the header has {length} bytes; at most {limits.max_header_bytes} are accepted",
            found=length,
            limit=limits.max_header_bytes,
        )
    return start + read_exactly(read, length)


def parse_header(head: bytes, *, size_bytes: int | None, limits: Limits = DEFAULT_LIMITS) -> Header:
    """Parse and check a header; the data of a body of unknown size ends with the last array."""
    fields, metadata = _parse(head[LENGTH_BYTES:])
    if len(fields) > limits.max_arrays:
        raise TooLarge(
            f"the header names {len(fields)} arrays; at most {limits.max_arrays} are accepted",
            found=len(fields),
            limit=limits.max_arrays,
        )
    entries = sorted(
        (_entry(name, field) for name, field in fields.items()), key=lambda entry: (entry.start, entry.stop)
    )
    data_size = max((entry.stop for entry in entries), default=0)
    _check_no_holes(entries, data_size=data_size if size_bytes is None else size_bytes - len(head))
    try:
        spec = Spec(tuple(entry.array for entry in entries))
    except InvalidSpec as error:
        raise MalformedSafetensors(error.message, **error.facts) from error
    return Header(tuple(entries), len(head), spec, metadata)


def read_exactly(read: Callable[[int], bytes | memoryview], size: int) -> bytes:
    """Read exactly `size` bytes. Raises TruncatedBody when the body ends before."""
    pieces: list[bytes | memoryview] = []
    missing = size
    while missing > 0:
        piece = read(min(missing, PIECE_BYTES))
        if not piece:
            raise TruncatedBody("the body ended before its announced end")
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)  # a single piece of bytes is not copied


def _parse(text: bytes) -> tuple[dict[str, Any], dict[str, str]]:
    if not text.startswith(b"{"):
        raise MalformedSafetensors("the header must be a JSON object; it does not begin with '{'")
    try:
        # Python's json raises RecursionError for a hundred thousand open brackets.
        fields = json.loads(
            text.decode(), object_pairs_hook=_unique, parse_constant=_no_number, parse_float=_no_number
        )
    except (ValueError, RecursionError) as error:
        raise MalformedSafetensors(f"the header is not valid JSON: {error}") from error
    metadata = fields.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise MalformedSafetensors("'__metadata__' must be an object of strings")
    assert isinstance(fields, dict)  # noqa: S101  the text begins with a brace
    return fields, metadata


def _canonical_entries(spec: Spec) -> tuple[Entry, ...]:
    entries, start = [], 0
    for array in spec.arrays:
        entries.append(Entry(array, start, start + array.size_bytes))
        start += array.size_bytes
    return tuple(entries)


def _runs(entries: Sequence[Entry]) -> tuple[tuple[str, int, int], ...]:
    return tuple(
        (dtype, run[0].start, run[-1].stop)
        for dtype, group in groupby(entries, key=lambda entry: entry.array.dtype)
        for run in [list(group)]
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise MalformedSafetensors(f"the header says {twice[:80]!r} twice", name=twice)
    return fields


def _no_number(text: str) -> NoReturn:
    raise MalformedSafetensors(f"numbers in the header must be integers, found {text[:80]}")


def _entry(name: str, field: object) -> Entry:
    if not isinstance(field, dict) or field.keys() != {"dtype", "shape", "data_offsets"}:
        raise MalformedSafetensors(
            f"array {name[:80]!r} must have exactly 'dtype', 'shape' and 'data_offsets' in the header",
            array=name,
        )
    tag, shape, offsets = field["dtype"], field["shape"], field["data_offsets"]
    if not isinstance(tag, str) or tag not in dtypes.NAMES_BY_TAG:
        raise MalformedSafetensors(
            f"array {name[:80]!r} has dtype {str(tag)[:80]!r}; known are {', '.join(dtypes.NAMES_BY_TAG)}",
            array=name,
        )
    if not isinstance(shape, list):
        raise MalformedSafetensors(f"array {name[:80]!r} must have a list as its shape", array=name)
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(type(offset) is int and 0 <= offset <= MAX_ARRAY_BYTES for offset in offsets)
    ):
        raise MalformedSafetensors(
            f"array {name[:80]!r} must have two data_offsets from 0 to 2**62", array=name
        )
    try:
        array = ArraySpec(name, tuple(shape), dtypes.NAMES_BY_TAG[tag])
    except InvalidSpec as error:
        raise MalformedSafetensors(error.message, **error.facts) from error
    start, stop = offsets
    if stop - start != array.size_bytes:
        raise MalformedSafetensors(
            f"array {name!r} of shape {array.shape} and dtype {array.dtype} has {array.size_bytes} bytes; "
            f"its data_offsets {start} to {stop} say {stop - start}",
            array=name,
        )
    return Entry(array, start, stop)


def _check_no_holes(entries: list[Entry], *, data_size: int) -> None:
    position = 0
    for entry in entries:
        if entry.start != position:
            what = "overlaps the array before it" if entry.start < position else "leaves a hole before it"
            raise MalformedSafetensors(
                f"array {entry.array.name!r} starts at byte {entry.start} of the data and {what}, "
                f"which ends at {position}",
                array=entry.array.name,
            )
        position = entry.stop
    if position != data_size:
        raise MalformedSafetensors(
            f"the arrays have {position} bytes in all; {data_size} bytes of data follow the header",
            found=data_size,
            expected=position,
        )
