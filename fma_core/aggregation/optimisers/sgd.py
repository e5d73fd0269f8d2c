"""The plain step, and the one with momentum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from fma_core.aggregation.aggregators.aggregator import Float64
from fma_core.aggregation.optimisers.optimiser import Optimiser, optimisers
from fma_core.parameters import Bounds

LearningRate = Annotated[float, Bounds(gt=0), "the server's learning rate"]


@optimisers.register("sgd")
@dataclass(frozen=True)
class Sgd(Optimiser):
    """x ← x + learning_rate · Δ."""

    source: ClassVar[str] = (
        "McMahan et al. 2017 (FedAvg), arXiv:1602.05629; Reddi et al. 2021, arXiv:2003.00295"
    )

    learning_rate: LearningRate = 1.0

    def step(self, delta: Float64, state: Mapping[str, Float64], num_steps: int) -> Float64:
        return np.multiply(delta, self.learning_rate, out=delta)


@optimisers.register("fedavgm")
@dataclass(frozen=True)
class FedAvgM(Optimiser):
    """v ← momentum · v + Δ; x ← x + learning_rate · v."""

    source: ClassVar[str] = "Hsu et al. 2019 (FedAvgM), arXiv:1909.06335"

    momentum: Annotated[float, Bounds(ge=0, lt=1), "how much of the last step is kept"] = 0.9
    learning_rate: LearningRate = 1.0

    @property
    def states(self) -> Mapping[str, float]:
        return {"v": 0.0}

    def step(self, delta: Float64, state: Mapping[str, Float64], num_steps: int) -> Float64:
        v = state["v"]
        v *= self.momentum
        v += delta
        return np.multiply(v, self.learning_rate, out=delta)
