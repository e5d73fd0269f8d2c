"""The contract of parts of all kinds."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest

from fma_core.errors import UnknownPart
from fma_core.parameters import parameters_of
from fma_core.registry import Registry
from fma_core.testing.require import require, through_pickle

FRAMEWORKS = ("django", "rest_framework", "fma_django", "fma_api")


class PartContract:
    """The checks that every part passes.

    part: the part under test, with sensible parameters.
    departures: checks that do not hold for this part, each with the reason: {"test_…": "because …"}. Only checks of
    `may_depart` can be named. A departure is tested, too: the test fails when the check would pass.
    """

    part: ClassVar[Any] = None
    departures: ClassVar[Mapping[str, str]] = {}

    registry: ClassVar[Registry[Any]]
    kind: ClassVar[type]
    may_depart: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, reason in cls.departures.items():
            if name not in cls.may_depart:
                allowed = ", ".join(sorted(cls.may_depart)) or "nothing"
                raise TypeError(f"{cls.__name__} cannot depart from {name!r}; only from {allowed}")
            if not reason.strip():
                raise TypeError(f"{cls.__name__} must say why it departs from {name!r}")
            setattr(cls, name, _departing(getattr(cls, name), reason))

    def test_it_is_a_frozen_dataclass_of_its_kind(self) -> None:
        require(
            isinstance(self.part, self.kind),
            f"`part` must be an instance of a subclass of {self.kind.__name__}, found {self.part!r}",
        )
        params = getattr(type(self.part), "__dataclass_params__", None)
        require(
            params is not None and params.frozen, f"{self._name} must be decorated @dataclass(frozen=True)"
        )
        try:
            hash(self.part)
        except TypeError as error:
            raise AssertionError(
                f"{self._name} must be hashable; make its list parameters `tuple[X, ...]`: {error}"
            ) from error

    def test_it_survives_pickling(self) -> None:
        copy = through_pickle(self.part, self._name)
        require(copy == self.part, f"{self._name} must equal itself after pickling, found {copy!r}")

    def test_it_is_registered_and_comes_back_from_its_spec(self) -> None:
        self._find_plugin()
        try:
            spec = self.registry.spec_of(self.part)
        except UnknownPart as error:
            kind = self.registry.kind
            raise AssertionError(
                f"{self._name} must have a name: decorate it with the registry's @….register(name), or declare it "
                f"as an entry point in the group {self.registry.group!r} and install the package "
                f"(pip install -e .), so that models can choose it as {kind}"
            ) from error
        try:
            sent = json.loads(json.dumps(spec))
        except TypeError as error:
            raise AssertionError(f"the parameters of {self._name} must be JSON: {error}") from error
        built = self.registry.build_spec(sent)
        require(
            built == self.part,
            f"{self._name} must be rebuilt from its spec {spec}; found {built!r}, wanted {self.part!r}",
        )

    def test_it_is_described_for_people_and_programs(self) -> None:
        from jsonschema import Draft202012Validator

        self._find_plugin()
        with self.registry.register_temporarily("under_test", type(self.part)):
            described = self.registry.describe("under_test")
        require(
            bool(described.description),
            f"{self._name} needs a docstring; its first paragraph is shown to users",
        )
        if hasattr(self.kind, "source"):
            require(
                bool(described.source),
                f"{self._name} must say where it comes from: source: ClassVar[str] = 'Author year, arXiv:…' or whose "
                "idea it is",
            )
        for parameter in parameters_of(type(self.part)).values():
            require(
                bool(parameter.description),
                f"parameter {parameter.name!r} of {self._name} needs a description: "
                f"{parameter.name}: Annotated[…, Bounds(…), 'what it is']",
            )
        schema = described.parameters or {}
        Draft202012Validator.check_schema(schema)
        own = json.loads(json.dumps(dataclasses.asdict(self.part)))
        errors = [error.message for error in Draft202012Validator(schema).iter_errors(own)]
        require(not errors, f"the JSON Schema of {self._name} must accept its own parameters {own}: {errors}")

    def test_it_refuses_wrong_parameters(self) -> None:
        for name in parameters_of(type(self.part)):
            try:
                dataclasses.replace(self.part, **{name: object()})
            except ValueError:
                continue
            except Exception as error:
                raise AssertionError(
                    f"{self._name} must raise ValueError for a wrong {name!r}, found {error!r}; begin its "
                    "__post_init__ with super().__post_init__()"
                ) from error
            raise AssertionError(
                f"{self._name} must raise ValueError when {name!r} is of a type that it cannot have; begin its "
                "__post_init__ with super().__post_init__()"
            )

    def test_it_needs_no_framework(self) -> None:
        module, found = _frameworks_behind(type(self.part))
        require(
            not found,
            f"{module} must not import {', '.join(found)}: parts are arithmetic, and run where no server is installed",
        )

    @property
    def _name(self) -> str:
        return type(self.part).__name__

    def _find_plugin(self) -> None:
        """Let the registry load the plugin of the part: it loads a plugin when its name is first used."""
        for name in self.registry.names():
            try:
                if self.registry.class_of(name) is type(self.part):
                    return
            except UnknownPart:  # somebody else's plugin that cannot be loaded
                continue


def _departing(check: Callable[[Any], None], reason: str) -> Callable[[Any], None]:
    @functools.wraps(check)
    def departing(self: Any) -> None:
        check(self)

    marked: Callable[[Any], None] = pytest.mark.xfail(reason=reason, strict=True, raises=AssertionError)(
        departing
    )
    return marked


def _frameworks_behind(part: type) -> tuple[str, tuple[str, ...]]:
    module = part.__module__
    package = module.rpartition(".")[0]
    # One process imports all parts that a package exports.
    if getattr(sys.modules.get(package), part.__name__, None) is part:
        module = package
    return module, _imports(module)


@functools.cache
def _imports(module: str) -> tuple[str, ...]:
    program = f"import sys, {module}; print(*(name for name in {FRAMEWORKS!r} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
    )
    require(
        done.returncode == 0,
        f"{module} must be importable on its own, as it is on the machines that aggregate:\n{done.stderr}",
    )
    return tuple(done.stdout.split())
