"""The JSON of a file in pieces is the JSON of its arrays, whatever their shapes and dtypes, in small pieces."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fma_core.arrays.codecs import json_bytes, json_pieces
from fma_core.arrays.codecs.json_layouts import Layout
from fma_core.arrays.codecs.safetensors import encode, read_header
from fma_core.errors import NonFiniteValue, ValueOutOfRange

DTYPES = st.sampled_from(["float64", "float32", "float16", "int64", "uint8", "bool"])
SHAPES = npst.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=5)
ARRAYS = DTYPES.flatmap(
    lambda dtype: npst.arrays(
        dtype, SHAPES, elements={"allow_nan": False, "allow_infinity": False} if "float" in dtype else None
    )
)


def pieces_of(data: bytes, layout: Layout) -> list[bytes]:
    position = 0

    def read_on(size: int) -> bytes:
        nonlocal position
        position += size
        return data[position - size : position]

    header = read_header(read_on, size_bytes=len(data))
    return list(json_pieces.json_pieces(header, lambda start, size: data[start : start + size], layout))


@settings(deadline=None, max_examples=150)
@given(st.lists(ARRAYS, min_size=1, max_size=3), st.sampled_from([1, 8, 24, 100, 10_000]))
def test_the_pieces_are_the_text_of_the_whole(arrays: list[Any], block_bytes: int) -> None:
    by_layout: list[tuple[Layout, dict[str, Any]]] = [
        ("named", {f'w/{index}"': array for index, array in enumerate(arrays)}),
        ("layers", {str(index): array for index, array in enumerate(arrays)}),
        ("array", {"array": arrays[0]}),
    ]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(json_pieces, "BLOCK_BYTES", block_bytes)
        for layout, named in by_layout:
            assert b"".join(pieces_of(encode(named), layout)) == json_bytes.dumps(
                {name: named[name] for name in sorted(named)}, layout
            )


def test_no_piece_is_larger_than_the_text_of_a_block() -> None:
    pieces = pieces_of(encode({"w": np.random.default_rng(1).standard_normal((3, 300_000))}), "named")

    assert max(map(len, pieces)) < 12 * json_pieces.BLOCK_BYTES
    assert len(pieces) > 20


@pytest.mark.parametrize("block_bytes", [16, 10_000])
def test_a_value_that_no_weights_have_is_named(block_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_pieces, "BLOCK_BYTES", block_bytes)
    good = encode({"w": np.arange(12.0).reshape(4, 3)})
    bad = good.replace(np.float64(7).tobytes(), np.float64("nan").tobytes())
    with pytest.raises(NonFiniteValue, match="value 7 "):
        pieces_of(bad, "named")

    flags = encode({"w": np.zeros(40, bool)})
    with pytest.raises(ValueOutOfRange, match="value 39 "):
        pieces_of(flags[:-1] + b"\x02", "named")
