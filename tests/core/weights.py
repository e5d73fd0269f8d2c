"""Weights for tests: strategies, and an encoder and decoder that are not ours (the safetensors library)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from hypothesis import strategies as st
from numpy.typing import NDArray

from fma_core.aggregation.aggregators import Aggregator
from fma_core.aggregation.strategy import Strategy
from fma_core.arrays.codecs.header import canonical_header
from fma_core.arrays.codecs.safetensors import encode
from fma_core.arrays.dtypes import FLOATS, NUMPY_DTYPES, TAGS
from fma_core.arrays.spec import Spec
from fma_core.engine import ModelFile, Threads, UpdateFile, fold

Arrays = dict[str, NDArray[Any]]
names = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=8).filter(
    lambda name: name != "__metadata__"
)


@st.composite
def array_of(draw: st.DrawFn, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Any finite values of a dtype, signed zeros and denormals among them."""
    numpy_dtype = NUMPY_DTYPES[dtype]
    size = int(np.prod(shape))
    if dtype == "bool":
        return np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)), bool).reshape(shape)
    size_bytes = size * numpy_dtype.itemsize
    array = np.frombuffer(draw(st.binary(min_size=size_bytes, max_size=size_bytes)), numpy_dtype).copy()
    if dtype in FLOATS:
        with np.errstate(invalid="ignore"):
            array[~np.isfinite(array)] = 0
    return array.reshape(shape)


@st.composite
def arrays(draw: st.DrawFn, dtypes: Sequence[str] = tuple(NUMPY_DTYPES)) -> Arrays:
    """Up to five named arrays, empty and 0-dimensional ones among them, with at least one value in all."""
    shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
    found = {
        name: draw(array_of(draw(st.sampled_from(dtypes)), draw(shapes)))
        for name in draw(st.lists(names, min_size=1, max_size=5, unique=True))
    }
    if not any(array.size for array in found.values()):
        found["one"] = np.ones((), NUMPY_DTYPES[dtypes[0]])
    return found


def lay_out(
    arrays: Mapping[str, NDArray[Any]], order: Sequence[str], metadata: dict[str, str] | None = None
) -> bytes:
    """A legal safetensors body with the data in any order: what other people's writers make."""
    fields: dict[str, Any] = {"__metadata__": metadata} if metadata is not None else {}
    start = 0
    for name in order:
        array = arrays[name]
        fields[name] = {
            "dtype": TAGS[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [start, start + array.nbytes],
        }
        start += array.nbytes
    text = json.dumps(fields).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(arrays[name].tobytes() for name in order)


def by_the_library(body: bytes) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Tag, shape and bytes of each array, as the safetensors library reads them."""
    return {
        name: (entry["dtype"], tuple(entry["shape"]), bytes(entry["data"]))
        for name, entry in safetensors.deserialize(body)
    }


def facts_of(arrays: Mapping[str, NDArray[Any]]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: (TAGS[array.dtype.name], array.shape, array.tobytes()) for name, array in arrays.items()}


def pieces_of(body: bytes, sizes: Iterator[int] | None = None) -> Callable[[int], bytes]:
    """A `read` that gives less than it is asked for: 1, 2, 3, … bytes, or as `sizes` says."""
    position = 0

    def read(size: int) -> bytes:
        nonlocal position
        piece = body[position : position + min(size, next(sizes) if sizes else size)]
        position += len(piece)
        return piece

    return read


@contextmanager
def new_file(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        yield fd
    finally:
        os.close(fd)


def store(
    folder: Path, rows: Sequence[Arrays], num_examples: Sequence[int] | None = None
) -> list[UpdateFile]:
    """Canonical files of these updates, as the server keeps them."""
    updates = []
    for i, row in enumerate(rows):
        path = folder / f"update-{i}"
        path.write_bytes(encode(row))
        updates.append(UpdateFile(path, num_examples[i] if num_examples else 1, f"#{i}"))
    return updates


def fold_bytes(
    updates: Sequence[UpdateFile], spec: Spec, rule: Aggregator[Any] | Strategy, folder: Path, **options: Any
) -> bytes:
    """The result's file; `rule` is an aggregator alone or a whole strategy. What needs a start begins with zeros."""
    strategy = rule if isinstance(rule, Strategy) else Strategy(rule)
    if strategy.needs_start and "start" not in options:
        options["start"] = zeros(spec, folder)
    out = folder / "result"
    out.touch()
    if "threads" in options:
        options["executor"] = Threads(options.pop("threads"))
    fold(updates, spec=spec, strategy=strategy, out=out, **options)
    return out.read_bytes()


def zeros(spec: Spec, folder: Path) -> ModelFile:
    """A model of this spec whose parameters are all 0."""
    path = folder / "zeros"
    path.write_bytes(encode({a.name: np.zeros(a.shape, a.numpy_dtype) for a in spec.arrays}))
    return ModelFile(path, "zeros")


def data_of(body: bytes, spec: Spec) -> bytes:
    return body[len(canonical_header(spec)) :]
