"""FMA's three layouts of weights as nested lists of numbers.

    array     one rectangular array                         [[1.0, 2.0], [3.0, 4.0]]
    layers    a list of arrays of different shapes          [[[1.0, 2.0], [3.0, 4.0]], [0.5, 0.5]]
    named     an object of named arrays                     {"w": [[1.0, 2.0], [3.0, 4.0]], "b": [0.5, 0.5]}

Layers of one common shape are also a rectangular array, and are read as one unless the layout is given: the numbers are
the same. The array of the layout `array` is named "array", those of `layers` are named "0", "1", …. Every number is
read exactly or refused. Only a number for a float16, bfloat16 or float32 array is rounded to the nearest value, because
decimals like 0.1 have no exact value there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fma_core.arrays import dtypes
from fma_core.arrays.casting import cast
from fma_core.arrays.spec import MAX_DIMENSIONS, Arrays, Spec
from fma_core.errors import MalformedJson, NonFiniteValue, ValueOutOfRange

Layout = Literal["array", "layers", "named"]
ARRAY_NAME = "array"

# float64 holds every integer up to this bound exactly.
EXACT_INTEGERS = 2**53
MAX_DEPTH = MAX_DIMENSIONS


def arrays_of(
    value: object, *, layout: Layout | None = None, spec: Spec | None = None
) -> tuple[dict[str, NDArray[Any]], Layout]:
    """Read the arrays in parsed JSON; the second value is their layout.

    layout: the layout of `value`; None to recognise it.
    spec: the dtypes; an array that it does not name is read as float64. Names and shapes are not checked here.
    Raises MalformedJson, NonFiniteValue or ValueOutOfRange naming the place ("data[1][0]").
    """
    layout = layout or layout_of(value)
    arrays = {
        name: _array(item, place, dtype=_dtype(name, spec)) for name, item, place in _items(value, layout)
    }
    return arrays, layout


def layout_of(value: object) -> Layout:
    """Recognise the layout of parsed JSON. Raises MalformedJson."""
    if isinstance(value, dict):
        return "named"
    if not isinstance(value, list):
        raise MalformedJson(
            f"weights must be a list or an object of nested lists of numbers, found {_kind(value)} at data",
            place="data",
        )
    try:
        _flatten(value, "data")
    except _Ragged:
        # Layers if every item is a list; otherwise `_array` raises the first error.
        if all(isinstance(item, list) for item in value):
            return "layers"
    return "array"


def json_of(arrays: Arrays, layout: Layout) -> object:
    """The nested lists of these arrays, as Python numbers of exactly the same values."""
    return arrange({name: plain(array).tolist() for name, array in arrays.items()}, layout)


def arrange(values: Mapping[str, Any], layout: Layout) -> Any:
    """Arrange the values of named arrays in a layout.

    Raises ValueError when the names do not fit the layout: the caller stores the layout together with the spec.
    """
    if layout == "named":
        return dict(values)
    names = [ARRAY_NAME] if layout == "array" else [str(i) for i in range(len(values))]
    if set(names) != set(values):
        raise ValueError(f"the layout {layout!r} needs arrays named {names[:3]}…, found {list(values)[:3]}…")
    return values[ARRAY_NAME] if layout == "array" else [values[name] for name in names]


def plain(array: NDArray[Any]) -> NDArray[Any]:
    """The array in a dtype that JSON writers know, with the same values. Raises NonFiniteValue."""
    dtype = dtypes.name_of(array.dtype, array="array")
    if dtype not in dtypes.FLOATS:
        return array
    # float32 too: parsers read doubles, and the shortest decimals of a float32 are exact only for a float32.
    wide = array.astype(np.float64)
    if not np.isfinite(wide).all():
        raise NonFiniteValue("JSON has no NaN and no infinity; these weights hold one")
    return wide


class _Ragged(MalformedJson):
    pass


def _items(value: object, layout: Layout) -> Iterator[tuple[str, object, str]]:
    if layout == "array":
        yield ARRAY_NAME, value, "data"
        return
    kind: type = dict if layout == "named" else list
    if not isinstance(value, kind):
        wanted = "an object of named arrays" if layout == "named" else "a list of layers"
        raise MalformedJson(f"weights must be {wanted}, found {_kind(value)} at data", place="data")
    if not value:
        raise MalformedJson("weights must have at least one array, found none at data", place="data")
    if isinstance(value, dict):
        for name, item in value.items():
            yield name, item, f"data[{name[:80]!r}]"
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield str(i), item, f"data[{i}]"


def _dtype(name: str, spec: Spec | None) -> str:
    expected = spec.by_name.get(name) if spec is not None else None
    return expected.dtype if expected is not None else "float64"


def _array(value: object, place: str, *, dtype: str) -> NDArray[Any]:
    shape, numbers = _flatten(value, place)
    types = set(map(type, numbers))
    allowed = {bool, int, float} if dtype == "bool" else {int, float}
    if not types <= allowed:
        index = next(i for i, number in enumerate(numbers) if type(number) not in allowed)
        raise MalformedJson(
            f"weights must be numbers, found {_kind(numbers[index])} at {_place(place, shape, index)}",
            place=_place(place, shape, index),
        )
    convert = _floats if dtype in dtypes.FLOATS else _integers
    try:
        return convert(numbers, dtype, types).reshape(shape)
    except _At as at:
        where = _place(place, shape, at.index)
        raise at.error(f"{at.what} at {where}", place=where) from None


def _flatten(value: object, place: str) -> tuple[tuple[int, ...], list[Any]]:
    """The shape, and the leaves in one list; one level at a time with C loops, ten times faster than recursion."""
    if not isinstance(value, list):
        return (), [value]
    shape, level = [len(value)], value
    while level and isinstance(level[0], list):
        if set(map(type, level)) != {list}:
            index = next(i for i, item in enumerate(level) if not isinstance(item, list))
            _raise_uneven(place, shape, index, f"a list, like those beside it, found {_kind(level[index])}")
        length = len(level[0])
        if set(map(len, level)) != {length}:
            index = next(i for i, item in enumerate(level) if len(item) != length)
            _raise_uneven(place, shape, index, f"{length} items, like the first, found {len(level[index])}")
        shape.append(length)
        level = list(chain.from_iterable(level))
        if len(shape) > MAX_DEPTH:
            raise MalformedJson(
                f"weights may be nested {MAX_DEPTH} lists deep; {place} is deeper", place=place
            )
    if list in set(map(type, level)):
        index = next(i for i, item in enumerate(level) if isinstance(item, list))
        _raise_uneven(place, shape, index, "a number, like those beside it, found a list")
    return tuple(shape), level


def _raise_uneven(place: str, shape: list[int], index: int, what: str) -> None:
    where = _place(place, tuple(shape), index)
    raise _Ragged(f"an array must be rectangular: {where} must be {what}", place=where)


class _At(Exception):
    """The error of the number at a flat index; `_array` adds the place to it."""

    def __init__(self, error: type[NonFiniteValue] | type[ValueOutOfRange], what: str, index: int) -> None:
        super().__init__(what)
        self.error, self.what, self.index = error, what, index


def _floats(numbers: list[Any], dtype: str, types: set[type]) -> NDArray[Any]:
    try:
        wide = np.array(numbers, dtype=np.float64)
    except OverflowError:
        index = next(i for i, number in enumerate(numbers) if abs(number) > 1.7e308)
        raise _At(
            ValueOutOfRange, f"float64 cannot hold the integer {_short(numbers[index])}", index
        ) from None
    finite = np.isfinite(wide)
    if not finite.all():
        raise _At(NonFiniteValue, "weights must be finite, found NaN or infinity", int(np.argmin(finite)))
    if int in types:
        for i in np.flatnonzero(np.abs(wide) >= EXACT_INTEGERS).tolist():
            if type(numbers[i]) is int and int(wide[i]) != numbers[i]:
                raise _At(ValueOutOfRange, f"float64 cannot hold the integer {_short(numbers[i])} exactly", i)
    if dtype == "float64":
        return wide
    narrow = cast(wide, dtype)
    finite = np.isfinite(narrow)
    if not finite.all():
        index = int(np.argmin(finite))
        raise _At(ValueOutOfRange, f"{dtype} cannot hold {_short(numbers[index])}", index)
    return narrow


def _integers(numbers: list[Any], dtype: str, types: set[type]) -> NDArray[Any]:
    if float in types:
        for i, number in enumerate(numbers):
            if type(number) is float and not number.is_integer():
                finite = np.isfinite(number)
                what = (
                    f"{dtype} cannot hold {number}"
                    if finite
                    else "weights must be finite, found NaN or infinity"
                )
                raise _At(ValueOutOfRange if finite else NonFiniteValue, what, i)
        numbers = [int(number) for number in numbers]
    lowest, highest = _range_of(dtype)
    if numbers and not (lowest <= min(numbers) and max(numbers) <= highest):
        index = next(i for i, number in enumerate(numbers) if not lowest <= number <= highest)
        raise _At(ValueOutOfRange, f"{dtype} cannot hold {_short(numbers[index])}", index)
    return np.array(numbers, dtype=dtypes.NUMPY_DTYPES[dtype])


def _range_of(dtype: str) -> tuple[int, int]:
    if dtype == "bool":
        return 0, 1
    info = np.iinfo(dtypes.NUMPY_DTYPES[dtype])
    return int(info.min), int(info.max)


def _place(place: str, shape: tuple[int, ...], index: int) -> str:
    return place + "".join(f"[{int(i)}]" for i in np.unravel_index(index, shape)) if shape else place


def _kind(value: object) -> str:
    kinds: dict[type, str] = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "a boolean",
        type(None): "null",
    }
    return kinds.get(type(value), "a number" if isinstance(value, (int, float)) else type(value).__name__)


def _short(number: object) -> str:
    text = str(number)
    return text if len(text) <= 40 else f"{text[:37]}…"
