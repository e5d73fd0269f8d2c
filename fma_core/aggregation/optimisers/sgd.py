"""The plain step, and the step with momentum."""

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
    """x ← x + learning_rate · Δ.

    >>> import numpy as np
    >>> from fma_core.aggregation.aggregators import Mean
    >>> from fma_core.aggregation.strategy import Strategy
    >>> from fma_core.in_memory import fold_arrays
    >>> fold_arrays(Strategy(Mean(), optimiser=Sgd(learning_rate=0.5)), [{"w": np.array([4.0])}])["w"]
    array([2.])
    """

    source: ClassVar[str] = (
        "McMahan et al. 2017 (FedAvg), arXiv:1602.05629; Reddi et al. 2021, arXiv:2003.00295"
    )

    learning_rate: LearningRate = 1.0

    def step(self, delta: Float64, state: Mapping[str, Float64], num_steps: int) -> Float64:
        return np.multiply(delta, self.learning_rate, out=delta)


@optimisers.register("fedavgm")
@dataclass(frozen=True)
class FedAvgM(Optimiser):
    """v ← momentum · v + Δ; x ← x + learning_rate · v.

    >>> import numpy as np
    >>> from fma_core.aggregation.aggregators import Mean
    >>> from fma_core.aggregation.strategy import Strategy
    >>> from fma_core.in_memory import ArrayRounds
    >>> rounds = ArrayRounds(Strategy(Mean(), optimiser=FedAvgM(momentum=0.5)))
    >>> rounds.play([{"w": np.array([4.0])}])["w"], rounds.play([{"w": np.array([4.0])}])["w"]  # v: 4, then 2 + 0
    (array([4.]), array([6.]))
    """

    source: ClassVar[str] = "Hsu et al. 2019 (FedAvgM), arXiv:1909.06335"

    momentum: Annotated[float, Bounds(ge=0, lt=1), "the share of the last step that is kept"] = 0.9
    learning_rate: LearningRate = 1.0

    @property
    def states(self) -> Mapping[str, float]:
        return {"v": 0.0}

    def step(self, delta: Float64, state: Mapping[str, Float64], num_steps: int) -> Float64:
        v = state["v"]
        v *= self.momentum
        v += delta
        return np.multiply(v, self.learning_rate, out=delta)
