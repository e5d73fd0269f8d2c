"""Parameters of parts: the values that each accepts, as a sentence for people and as JSON Schema for programs.

A parameter is a field of a frozen dataclass, and its annotation describes it completely:

    beta: Annotated[float, Bounds(ge=0, lt=0.5), "the share cut off at each end"] = 0.1

Types are float, int, bool, str, Literal, `tuple[X, ...]` and unions of these with each other and None. The part itself
checks conditions on several parameters, in `__post_init__`.
"""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints
from weakref import WeakKeyDictionary

MAX_FLOAT = sys.float_info.max
MISSING = dataclasses.MISSING


@dataclass(frozen=True)
class Bounds:
    """The range of a number: at least `ge` or greater than `gt`, and at most `le` or less than `lt`.

    In the annotation of a union or of a tuple, it holds for every number in it.
    """

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def __post_init__(self) -> None:
        if None not in (self.ge, self.gt) or None not in (self.le, self.lt):
            raise ValueError("Bounds take either ge or gt, and either le or lt")

    def hold(self, value: float) -> bool:
        return (
            (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    def __str__(self) -> str:
        limits = {
            "at least": self.ge,
            "greater than": self.gt,
            "at most": self.le,
            "less than": self.lt,
        }
        return " and ".join(f"{words} {limit}" for words, limit in limits.items() if limit is not None)

    def to_schema(self) -> dict[str, Any]:
        limits = {
            "minimum": self.ge,
            "exclusiveMinimum": self.gt,
            "maximum": self.le,
            "exclusiveMaximum": self.lt,
        }
        return {keyword: limit for keyword, limit in limits.items() if limit is not None}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a part: the values that it accepts, and its default."""

    name: str
    kind: Kind
    default: Any
    description: str

    @property
    def is_required(self) -> bool:
        return self.default is MISSING

    def accept(self, value: Any) -> Any:
        """Convert a value for the part: an integer to a float, a list to a tuple.

        Raises ValueError, which says what must hold and what was found.
        """
        try:
            return self.kind.accept(value)
        except TypeError:
            wanted = str(self.kind)
        except OutOfBounds as error:
            wanted = str(error.bounds)
        raise ValueError(f"must be {wanted}, found {value!r:.80}")

    def to_schema(self) -> dict[str, Any]:
        schema = self.kind.to_schema()
        if self.description:
            schema["description"] = self.description
        if not self.is_required:
            schema["default"] = list(self.default) if isinstance(self.default, tuple) else self.default
        return schema


def parameters_of(part: type) -> Mapping[str, Parameter]:
    """The parameters of a part, by name, in order.

    Raises TypeError for an annotation that no parameter can have, and for a default that the annotation forbids.
    """
    known = _KNOWN.get(part)
    if known is None:
        known = _KNOWN[part] = _read_annotations(part)
    return known


# Reading annotations takes 150 µs, the rest of `build` 10 to 20, and parts are built for each update received.
_KNOWN: WeakKeyDictionary[type, Mapping[str, Parameter]] = WeakKeyDictionary()


def _read_annotations(part: type) -> Mapping[str, Parameter]:
    hints = get_type_hints(part, include_extras=True)
    fields = [field for field in dataclasses.fields(part) if field.init]
    return types.MappingProxyType(
        {field.name: _parameter(part, field, hints[field.name]) for field in fields}
    )


def schema_of(part: type) -> dict[str, Any]:
    """The parameters of a part as JSON Schema (draft 2020-12): it accepts the objects that `Registry.build` accepts.

    There are two exceptions, which only `build` refuses: 1.0 for an integer, because JSON Schema counts it as one, and
    an integer beyond the range of float64 for a float.
    """
    parameters = parameters_of(part)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {name: parameter.to_schema() for name, parameter in parameters.items()},
        "required": [name for name, parameter in parameters.items() if parameter.is_required],
        "additionalProperties": False,
    }


class CheckedPart:
    """A part that checks its parameters also when it is built in Python, without a registry.

    A subclass with a `__post_init__` of its own begins it with `super().__post_init__()`.
    """

    def __post_init__(self) -> None:
        for name, parameter in parameters_of(type(self)).items():
            try:
                parameter.accept(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"parameter {name!r} of {type(self).__name__} {error}") from None


class OutOfBounds(Exception):
    """A number of the right type outside its bounds."""

    def __init__(self, bounds: Bounds) -> None:
        super().__init__(str(bounds))
        self.bounds = bounds


class Kind(Protocol):
    """The values that a parameter accepts. As a string it completes "must be …"."""

    def accept(self, value: Any) -> Any:
        """Convert a value for the part. Raises TypeError, or OutOfBounds when only the bounds forbid it."""

    def to_schema(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Number:
    type: type[int] | type[float]
    bounds: Bounds

    def accept(self, value: Any) -> int | float:
        # JSON's true is not 1, but Python's bool is an int: the exact type decides.
        accepted: int | float
        if self.type is float and type(value) in (int, float) and abs(value) <= MAX_FLOAT:
            accepted = float(value)
        elif self.type is int and type(value) is int:
            accepted = value
        else:
            raise TypeError
        if not self.bounds.hold(accepted):
            raise OutOfBounds(self.bounds)
        return accepted

    def __str__(self) -> str:
        noun = "an integer" if self.type is int else "a finite number"
        return f"{noun} ({self.bounds})" if str(self.bounds) else noun

    def to_schema(self) -> dict[str, Any]:
        return {"type": "integer" if self.type is int else "number", **self.bounds.to_schema()}


@dataclass(frozen=True)
class Plain:
    """A string, true or false, or null."""

    type: type
    words: str
    schema_type: str

    def accept(self, value: Any) -> Any:
        if type(value) is not self.type:
            raise TypeError
        return value

    def __str__(self) -> str:
        return self.words

    def to_schema(self) -> dict[str, Any]:
        return {"type": self.schema_type}


PLAIN = {
    str: Plain(str, "a string", "string"),
    bool: Plain(bool, "true or false", "boolean"),
    types.NoneType: Plain(types.NoneType, "null", "null"),
}


@dataclass(frozen=True)
class Choice:
    options: tuple[Any, ...]

    def accept(self, value: Any) -> Any:
        if not any(type(value) is type(option) and value == option for option in self.options):
            raise TypeError
        return value

    def __str__(self) -> str:
        return " or ".join(repr(option) for option in self.options)

    def to_schema(self) -> dict[str, Any]:
        return {"enum": list(self.options)}


@dataclass(frozen=True)
class ListOf:
    item: Kind

    def accept(self, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise TypeError
        try:
            return tuple(self.item.accept(item) for item in value)
        except OutOfBounds:
            raise TypeError from None

    def __str__(self) -> str:
        return f"a list of which each is {self.item}"

    def to_schema(self) -> dict[str, Any]:
        return {"type": "array", "items": self.item.to_schema()}


@dataclass(frozen=True)
class OneOf:
    options: tuple[Kind, ...]

    def accept(self, value: Any) -> Any:
        for option in self.options:
            try:
                return option.accept(value)
            except (TypeError, OutOfBounds):
                continue
        raise TypeError

    def __str__(self) -> str:
        return " or ".join(str(option) for option in self.options)

    def to_schema(self) -> dict[str, Any]:
        schemas = [option.to_schema() for option in self.options]
        # Nearly every union is "X or null", and forms handle `type` better than `anyOf`.
        if len(schemas) == 2 and schemas[1] == {"type": "null"} and "type" in schemas[0]:
            return {**schemas[0], "type": [schemas[0]["type"], "null"]}
        return {"anyOf": schemas}


def _parameter(part: type, field: dataclasses.Field[Any], hint: Any) -> Parameter:
    where = f"parameter {field.name!r} of {part.__name__}"
    try:
        kind = _kind(hint, Bounds())
    except TypeError as error:
        raise TypeError(f"{where}: {error}") from None
    default = field.default if field.default_factory is MISSING else field.default_factory()
    parameter = Parameter(field.name, kind, default, _description(hint))
    if not parameter.is_required:
        try:
            parameter.accept(default)
        except ValueError as error:
            raise TypeError(f"the default of {where} {error}") from None
    return parameter


def _kind(hint: Any, bounds: Bounds) -> Kind:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        inner = [extra for extra in hint.__metadata__ if isinstance(extra, Bounds)]
        if len(inner) + (bounds != Bounds()) > 1:
            raise TypeError("a number has one Bounds")
        return _kind(arguments[0], *inner or [bounds])
    if origin in (Union, types.UnionType):
        return OneOf(tuple(_kind(option, bounds) for option in arguments))
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return ListOf(_kind(arguments[0], bounds))
    if hint in (int, float):
        return Number(hint, bounds)
    if hint is not types.NoneType and bounds != Bounds():
        raise TypeError(f"Bounds are for numbers, not for {hint}")
    if origin is Literal:
        return Choice(arguments)
    if hint in PLAIN:
        return PLAIN[hint]
    raise TypeError(f"no parameter can be of type {hint}")


def _description(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        return next((extra for extra in hint.__metadata__ if isinstance(extra, str)), "") or _description(
            get_args(hint)[0]
        )
    if get_origin(hint) in (Union, types.UnionType):
        return next(filter(None, map(_description, get_args(hint))), "")
    return ""
