"""Parts by name: the database stores a name and parameters, never a path to code.

A part is a frozen dataclass. Its fields are its parameters; `build` checks values against their annotations (see
fma_core.parameters), and `describe` shows them. A part refuses a combination of parameters by raising ValueError in
`__post_init__`. Built-in parts register by decorator; third parties declare an entry point, which is loaded when its
name is first used.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, Generic, TypeVar

from fma_core.errors import InvalidParameter, UnknownPart
from fma_core.parameters import parameters_of, schema_of

PartT = TypeVar("PartT")
ClassT = TypeVar("ClassT", bound=type)

# In every spec, "name" is the part's name; the others are class variables that `describe` shows.
RESERVED = frozenset({"name", "source", "minimum"})


@dataclass(frozen=True)
class Description:
    """The description of a part, for people and programs that choose one.

    description: the first paragraph of its docstring.
    source: the paper, or the project that the rule comes from; "" when the class does not say.
    minimum: the formula of the smallest number of updates ("2·f + 3"); None when the class has none.
    parameters: JSON Schema (draft 2020-12) of the object of parameters; None when there is an error.
    error: the reason why the part cannot be used (a plugin that cannot be loaded); None when it can.
    """

    name: str
    kind: str
    description: str = ""
    source: str = ""
    minimum: str | None = None
    parameters: dict[str, Any] | None = None
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class Registry(Generic[PartT]):
    """The parts of one kind, by name.

    kind: the word for messages ("aggregator").
    group: the entry point group of third parties ("fma.aggregators"); they cannot replace a built-in name.
    generation: changes whenever any name, of any kind, gets another meaning; for caches of parts by name.
    """

    generation: ClassVar[int] = 0

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._classes: dict[str, type] = {}
        self._entry_points: dict[str, EntryPoint] | None = None

    def register(self, name: str) -> Callable[[ClassT], ClassT]:
        """Register a frozen dataclass under a name, as a decorator."""

        def add(part: ClassT) -> ClassT:
            if name in self._classes:
                raise ValueError(
                    f"{self.kind} {name!r} is registered already, as {self._classes[name].__name__}"
                )
            self._classes[name] = _part(part)
            return part

        return add

    @contextmanager
    def register_temporarily(self, name: str, part: type) -> Iterator[None]:
        """Register a part for the time of a test; it replaces a part of the same name."""
        before = self._classes.get(name)
        self._classes[name] = _part(part)
        Registry.generation += 1
        try:
            yield
        finally:
            if before is None:
                del self._classes[name]
            else:
                self._classes[name] = before
            Registry.generation += 1

    def names(self) -> tuple[str, ...]:
        """Every registered name, sorted; plugins are named without being loaded."""
        return tuple(sorted({*self._classes, *self._plugins()}))

    def build(self, name: str, params: Mapping[str, Any] | Sequence[Any] | None = None) -> PartT:
        """Build the part of this name with these parameters, each checked against its type and bounds.

        params: by name, or in order as FMA's `requirement_args`.
        Raises UnknownPart or InvalidParameter.

        >>> from fma_core.aggregation.aggregators import aggregators
        >>> aggregators.build("trimmed_mean", {"beta": 0.2})
        TrimmedMean(beta=0.2)
        >>> aggregators.build("krum", {"f": -1})
        Traceback (most recent call last):
        fma_core.errors.InvalidParameter: parameter 'f' of aggregator 'krum' must be at least 0, found -1
        """
        part = self.class_of(name)
        parameters = parameters_of(part)
        given = self._by_name(name, params, parameters)
        for parameter in parameters.values():
            if parameter.is_required and parameter.name not in given:
                raise self._unfit(name, parameter.name, "is missing", parameters)
        values = {}
        for key, value in given.items():
            if key not in parameters:
                raise self._unfit(name, key, "is unknown", parameters)
            try:
                values[key] = parameters[key].accept(value)
            except ValueError as error:
                message = f"parameter {key!r} of {self.kind} {name!r} {error}"
                raise self._invalid(name, message, parameter=key, known=parameters) from None
        try:
            built: PartT = part(**values)
        except ValueError as error:
            message = f"{self.kind} {name!r}: {error}"
            at_fault = _first_named(parameters, str(error))
            raise self._invalid(name, message, parameter=at_fault, known=parameters) from error
        return built

    def build_spec(self, spec: Mapping[str, Any]) -> PartT:
        """Build the part of a spec that `spec_of` gave: {"name": …, and its parameters}.

        Raises UnknownPart or InvalidParameter.
        """
        if not isinstance(spec, Mapping) or "name" not in spec:
            known = self.names()
            example = '{"name": "' + (known[0] if known else "…") + '", …}'
            message = f'{self.kind} must be an object with a "name", such as {example}; found {spec!r:.80}'
            raise self._invalid(None, message, parameter=None, known=known)
        return self.build(spec["name"], {key: value for key, value in spec.items() if key != "name"})

    def describe(self, name: str) -> Description:
        """Describe the part of this name and its parameters. Raises UnknownPart."""
        part = self.class_of(name)
        return Description(
            name=name,
            kind=self.kind,
            description=_first_paragraph(part),
            source=getattr(part, "source", ""),
            minimum=getattr(part, "minimum", None),
            parameters=schema_of(part),
        )

    def describe_all(self) -> tuple[Description, ...]:
        """Describe every part, sorted by name; a plugin that cannot be loaded has an error instead."""
        return tuple(self._describe_or_error(name) for name in self.names())

    def class_of(self, name: str) -> type[Any]:
        """The class registered under a name. Raises UnknownPart, with the known names or the failure of a plugin."""
        if isinstance(name, str) and name in self._classes:
            registered: type[Any] = self._classes[name]
            return registered
        plugin = self._plugins().get(name) if isinstance(name, str) else None
        if plugin is None:
            known = self.names()
            close = get_close_matches(name, known, n=1) if isinstance(name, str) else []
            raise UnknownPart(
                f"{self.kind} {name!r:.80} is unknown; "
                + (f"did you mean {close[0]!r}? " if close else "")
                + f"known are {', '.join(known)}",
                kind=self.kind,
                name=name,
                known=list(known),
            )
        try:
            part: type[Any] = _part(plugin.load())
            parameters_of(part)  # wrong annotations are the plugin's own fault, too
        except Exception as error:  # a plugin may raise anything, and must not break the others
            raise UnknownPart(
                f"{self.kind} {name!r} comes from the plugin {plugin.value!r}, which cannot be loaded: "
                f"{type(error).__name__}: {error}",
                kind=self.kind,
                name=name,
                known=list(self.names()),
            ) from error
        self._classes[name] = part
        return part

    def name_of(self, part: PartT) -> str:
        """The name of a part for people; the name of its class when it is not registered."""
        return next(
            (name for name, registered in self._classes.items() if registered is type(part)),
            type(part).__name__,
        )

    def spec_of(self, part: PartT) -> dict[str, Any]:
        """The spec of a part, as it is stored: {"name": …, and its parameters}; `build_spec` gives an equal part."""
        name = self.name_of(part)
        if self._classes.get(name) is type(part):
            return {"name": name, **dataclasses.asdict(part)}  # type: ignore[call-overload]
        raise UnknownPart(
            f"{self.kind} {type(part).__name__} is not registered; known are {', '.join(self.names())}",
            kind=self.kind,
            name=type(part).__name__,
            known=list(self.names()),
        )

    def _plugins(self) -> dict[str, EntryPoint]:
        if self._entry_points is None:
            self._entry_points = {point.name: point for point in entry_points(group=self.group)}
        return self._entry_points

    def _by_name(
        self, name: str, params: Mapping[str, Any] | Sequence[Any] | None, parameters: Mapping[str, Any]
    ) -> dict[str, Any]:
        if params is None:
            return {}
        if isinstance(params, Mapping):
            return dict(params)
        if isinstance(params, (str, bytes)) or not isinstance(params, Sequence):
            message = f"parameters of {self.kind} {name!r} must be an object or a list, found {params!r:.80}"
            raise self._invalid(name, message, parameter=None, known=parameters)
        if len(params) > len(parameters):
            message = (
                f"{self.kind} {name!r} takes {len(parameters)} parameters ({', '.join(parameters) or 'none'}), "
                f"found {len(params)}"
            )
            raise self._invalid(name, message, parameter=None, known=parameters)
        return dict(zip(parameters, params, strict=False))

    def _describe_or_error(self, name: str) -> Description:
        try:
            return self.describe(name)
        except UnknownPart as error:
            return Description(name=name, kind=self.kind, error=error.message)

    def _unfit(self, name: str, key: object, what: str, parameters: Iterable[str]) -> InvalidParameter:
        message = (
            f"parameter {key!r:.80} of {self.kind} {name!r} {what}; "
            f"its parameters are {', '.join(parameters) or 'none'}"
        )
        return self._invalid(name, message, parameter=key, known=parameters)

    def _invalid(
        self, name: str | None, message: str, *, parameter: object, known: Iterable[str]
    ) -> InvalidParameter:
        return InvalidParameter(message, kind=self.kind, name=name, parameter=parameter, known=list(known))


def _part(part: Any) -> Any:
    params = getattr(part, "__dataclass_params__", None)
    if not isinstance(part, type) or params is None or not params.frozen:
        raise TypeError(f"a part must be a frozen dataclass; {part!r} is not")
    for field in dataclasses.fields(part):
        if field.name in RESERVED:
            raise TypeError(
                f"{part.__name__} has a parameter named {field.name!r}, which every part has already"
            )
    return part


def _first_named(parameters: Iterable[str], sentence: str) -> str | None:
    """The parameter that a part's own sentence names first. Names are short ("f", "x"), so only whole words count."""
    return next((word for word in re.findall(r"\w+", sentence) if word in set(parameters)), None)


def _first_paragraph(part: type) -> str:
    docstring = part.__doc__ or ""
    # A dataclass without a docstring is given its signature as one.
    if docstring.startswith(f"{part.__name__}("):
        return ""
    return " ".join(inspect.cleandoc(docstring).split("\n\n")[0].split())
