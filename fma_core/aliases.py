"""Old names of modules: they keep working for some versions, and say what to import instead.

    aliases.install(Alias("fma_core.strategy", "fma_core.aggregation.strategy", since="0.2", until="0.4"))

An alias covers the modules below it too. One whose version has come is removed; a test fails while it is still there.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


@dataclass(frozen=True)
class Alias:
    """A module that moved from `old` to `new`, in version `since`; version `until` removes the alias."""

    old: str
    new: str
    since: str
    until: str

    def covers(self, name: str) -> bool:
        return name == self.old or name.startswith(f"{self.old}.")

    def new_name_of(self, name: str) -> str:
        return self.new + name.removeprefix(self.old)


def install(*aliases: Alias) -> None:
    """Let these old names be imported."""
    _FINDER.aliases += aliases


def installed() -> tuple[Alias, ...]:
    """The aliases of the packages that have been imported."""
    return _FINDER.aliases


class _Finder(MetaPathFinder):
    def __init__(self) -> None:
        self.aliases: tuple[Alias, ...] = ()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        alias = next((alias for alias in self.aliases if alias.covers(fullname)), None)
        return None if alias is None else ModuleSpec(fullname, _Loader(alias))


class _Loader(Loader):
    def __init__(self, alias: Alias) -> None:
        self._alias = alias

    def exec_module(self, module: ModuleType) -> None:
        old, new = module.__name__, self._alias.new_name_of(module.__name__)
        # The very module, so that a class has one identity under both names. The import system takes it from here.
        sys.modules[old] = importlib.import_module(new)
        warnings.warn(
            f"{old} has been {new} since fma {self._alias.since}; the old name goes with {self._alias.until}",
            DeprecationWarning,
            stacklevel=2,  # who imports it: frames of the import system are not counted
        )


_FINDER = _Finder()
# First: below a package under its old name the others would find the modules of the new one, and load them once more.
sys.meta_path.insert(0, _FINDER)
