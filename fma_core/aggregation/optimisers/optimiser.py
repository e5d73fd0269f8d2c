"""The seam of server optimisers: what the model does with the step that the rule gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from fma_core.aggregation.aggregators.aggregator import Float64
from fma_core.parameters import CheckedPart
from fma_core.registry import Registry


class Optimiser(CheckedPart, ABC):
    """A server optimiser; its subclasses are frozen dataclasses whose fields are its parameters.

    It acts on floating-point parameters one by one, so that the engine can call it for any block of columns.
    """

    source: ClassVar[str] = ""

    @property
    def states(self) -> Mapping[str, float]:
        """What it keeps from round to round, one array like the model each: its name and what fills it at first."""
        return {}

    @abstractmethod
    def step(self, delta: Float64, state: Mapping[str, Float64], num_steps: int) -> Float64:
        """What to add to the model: (columns,).

        delta: what the rule gave, (columns,); the caller's no more.
        state: (columns,) each; what is written into them is kept with the aggregate.
        num_steps: how many steps this state has seen, this one included.
        """


optimisers: Registry[Optimiser] = Registry("optimiser", "fma.optimisers")
