"""The seam of selectors: whom of the eligible clients to ask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from fma_core.parameters import CheckedPart
from fma_core.registry import Registry
from fma_core.selection.candidate import Candidate, PastRound
from fma_core.selection.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Pool:
    """What a selector chooses from.

    candidates: the eligible ones, at least one, in the order of `client`.
    num: how many are wanted; None when all that the selector would take are.
    round_number: of the round that is chosen for, from 1. past: rounds before it, the oldest first.
    """

    candidates: tuple[Candidate, ...]
    num: int | None
    round_number: int
    past: tuple[PastRound, ...] = ()

    @property
    def num_wanted(self) -> int:
        """How many there are to be chosen: never more than there are."""
        return len(self.candidates) if self.num is None else min(self.num, len(self.candidates))


@dataclass(frozen=True, slots=True)
class Choice:
    """The clients to ask, and why not, for those of which the selector has more to say than that others were chosen."""

    chosen: frozenset[str]
    refused: Mapping[str, Refusal] = field(default_factory=dict)


class Selector(CheckedPart, ABC):
    """A way to choose clients; its subclasses are frozen dataclasses whose fields are its parameters.

    minimum: the smallest number of eligible clients, as a formula of its parameters.
    num_past: how many of the last rounds it looks at, so that no more need be read; None for all of them.
    takes_num: whether the wanted number is what it chooses (fewer where there are fewer); False where its own rule
        decides how many.
    """

    source: ClassVar[str] = ""
    minimum: ClassVar[str] = "1"
    takes_num: ClassVar[bool] = True

    @property
    def num_past(self) -> int | None:
        return 0

    @abstractmethod
    def choose(self, pool: Pool, rng: np.random.Generator) -> Choice:
        """The choice. It depends on its arguments alone, and all its randomness is the generator's."""


selectors: Registry[Selector] = Registry("selector", "fma.selectors")
