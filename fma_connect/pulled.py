"""The model as a client pulled it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Arrays", "Pulled"]

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Pulled:
    """One state of a model.

    arrays: by name, read-only, because `pull` returns the same arrays while the model has not changed; `copies` gives
        writable ones for training.
    base_aggregate: the aggregate of the arrays; None when they are of an artifact (an initial model).
    etag: the server's identifier of exactly these bytes.
    """

    arrays: Arrays = field(repr=False)
    base_aggregate: int | None
    etag: str | None

    def __post_init__(self) -> None:
        for array in self.arrays.values():
            array.flags.writeable = False
        object.__setattr__(self, "arrays", MappingProxyType(dict(self.arrays)))

    def __reduce__(self) -> tuple[Any, ...]:
        # A mappingproxy can neither be pickled nor copied deeply.
        return Pulled, (dict(self.arrays), self.base_aggregate, self.etag)

    def copies(self) -> dict[str, npt.NDArray[Any]]:
        """Writable copies of the arrays."""
        return {name: np.array(array, copy=True) for name, array in self.arrays.items()}
