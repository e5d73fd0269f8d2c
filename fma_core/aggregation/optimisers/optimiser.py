"""The seam of server optimisers: they turn the step that the rule gives into the change of the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from fma_core.aggregation.aggregators.aggregator import Float64
from fma_core.parameters import CheckedPart
from fma_core.registry import Registry


class Optimiser(CheckedPart, ABC):
    """A server optimiser; its subclasses are frozen dataclasses whose fields are its parameters.

    It handles each floating-point parameter by itself, so that the engine can call it for any block of columns.
    """

    source: ClassVar[str] = ""

    @property
    def states(self) -> Mapping[str, float]:
        """The arrays that it keeps from round to round, each like the model: names and initial values."""
        return {}

    @abstractmethod
    def step(self, delta: Float64, state: Mapping[str, Float64], num_steps: int) -> Float64:
        """The change of the model: (columns,).

        delta: the step that the rule gave, (columns,); the optimiser may overwrite it.
        state: (columns,) each; changes to them are kept with the aggregate.
        num_steps: the number of steps that this state has seen, this one included.
        """


optimisers: Registry[Optimiser] = Registry("optimiser", "fma.optimisers")
