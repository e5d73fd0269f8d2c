"""Server optimisers with a step size for each parameter: FedAdagrad, FedAdam, FedYogi.

    m ← β1 m + (1 − β1) Δ
    v ← v + Δ²                              FedAdagrad
    v ← β2 v + (1 − β2) Δ²                  FedAdam
    v ← v − (1 − β2) Δ² sign(v − Δ²)        FedYogi
    x ← x + η m / (√v + τ)

Source: Reddi et al. 2021, arXiv:2003.00295, algorithm 2. There m starts at 0, v at τ², and nothing corrects their
bias.

`bias_correction` offers what Adam's own paper does (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1): m / (1 − β1^t)
and v / (1 − β2^t) in step t, which is right only if v starts at 0, as it then does; τ is that paper's ε. Flower's
FedAdam (1.41) multiplies η by √(1 − β2^(t+1)) / (1 − β1^(t+1)) instead, one round ahead of that paper; this is not
offered.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from fma_core.aggregation.aggregators.aggregator import Float64
from fma_core.aggregation.optimisers.optimiser import Optimiser, optimisers
from fma_core.aggregation.optimisers.sgd import LearningRate
from fma_core.parameters import Bounds

Beta1 = Annotated[float, Bounds(ge=0, lt=1), "the share of the old mean of the steps that is kept"]
Beta2 = Annotated[float, Bounds(ge=0, lt=1), "the share of the old mean of the squared steps that is kept"]
Tau = Annotated[float, Bounds(gt=0), "the smallest divisor: the smaller it is, the more the steps adapt"]
BiasCorrection = Annotated[bool, "correct m and v for their start, as Adam's paper does; v then starts at 0"]

REDDI = "Reddi et al. 2021, arXiv:2003.00295"


@optimisers.register("fedadagrad")
@dataclass(frozen=True)
class FedAdagrad(Optimiser):
    """x ← x + learning_rate · m / (√v + tau), where v is the sum of all squared steps.

    >>> import numpy as np
    >>> from fma_core.aggregation.aggregators import Mean
    >>> from fma_core.aggregation.strategy import Strategy
    >>> from fma_core.in_memory import fold_arrays
    >>> adagrad = Strategy(Mean(), optimiser=FedAdagrad(learning_rate=1.0, tau=3.0))  # v is 3² at first
    >>> fold_arrays(adagrad, [{"w": np.array([4.0])}])["w"]  # 4 / (√(9 + 16) + 3)
    array([0.5])
    """

    source: ClassVar[str] = REDDI

    beta1: Beta1 = 0.0
    learning_rate: LearningRate = 0.1
    tau: Tau = 1e-3

    @property
    def states(self) -> Mapping[str, float]:
        return {"m": 0.0, "v": self.tau**2}

    def step(self, delta: Float64, state: Mapping[str, Float64], num_steps: int) -> Float64:
        m, v = state["m"], state["v"]
        m[:] = self.beta1 * m + (1 - self.beta1) * delta
        v[:] = v + delta**2
        return self.learning_rate * m / (np.sqrt(v) + self.tau)


@dataclass(frozen=True)
class _DecayingMoments(Optimiser):
    """The shared part of FedAdam and FedYogi, which differ in the update of v only."""

    beta1: Beta1 = 0.9
    beta2: Beta2 = 0.99
    tau: Tau = 1e-3
    learning_rate: LearningRate = 0.1
    bias_correction: BiasCorrection = False

    @property
    def states(self) -> Mapping[str, float]:
        return {"m": 0.0, "v": 0.0 if self.bias_correction else self.tau**2}

    def step(self, delta: Float64, state: Mapping[str, Float64], num_steps: int) -> Float64:
        m, v = state["m"], state["v"]
        m[:] = self.beta1 * m + (1 - self.beta1) * delta
        v[:] = self._second_moment(v, delta**2)
        if self.bias_correction:
            # New arrays: the state keeps the moments as they are, not the ones corrected for this step.
            m = m / (1 - self.beta1**num_steps)
            v = v / (1 - self.beta2**num_steps)
        return self.learning_rate * m / (np.sqrt(v) + self.tau)

    @abstractmethod
    def _second_moment(self, v: Float64, squares: Float64) -> Float64: ...


@optimisers.register("fedadam")
@dataclass(frozen=True)
class FedAdam(_DecayingMoments):
    """x ← x + learning_rate · m / (√v + tau), where v is the decaying mean of the squared steps.

    >>> import numpy as np
    >>> from fma_core.aggregation.aggregators import Mean
    >>> from fma_core.aggregation.strategy import Strategy
    >>> from fma_core.in_memory import fold_arrays
    >>> adam = Strategy(Mean(), optimiser=FedAdam(learning_rate=0.5, tau=1e-9, bias_correction=True))
    >>> fold_arrays(adam, [{"w": np.array([0.1, 900.0])}])["w"].round(3)  # the learning rate, at any size
    array([0.5, 0.5])
    """

    source: ClassVar[str] = REDDI

    def _second_moment(self, v: Float64, squares: Float64) -> Float64:
        return self.beta2 * v + (1 - self.beta2) * squares


@optimisers.register("fedyogi")
@dataclass(frozen=True)
class FedYogi(_DecayingMoments):
    """x ← x + learning_rate · m / (√v + tau), where v moves towards the squared step by a bounded amount.

    >>> import numpy as np
    >>> from fma_core.aggregation.aggregators import Mean
    >>> from fma_core.aggregation.strategy import Strategy
    >>> from fma_core.in_memory import fold_arrays
    >>> yogi = Strategy(Mean(), optimiser=FedYogi(beta1=0.0, beta2=0.5, tau=1.0, learning_rate=1.0))
    >>> fold_arrays(yogi, [{"w": np.array([4.0])}])["w"]  # v is 1 + 0.5 · 16 = 9, and 4 / (√9 + 1) = 1
    array([1.])
    """

    source: ClassVar[str] = f"{REDDI}; Zaheer et al. 2018 (Yogi), NeurIPS"

    learning_rate: LearningRate = 0.01

    def _second_moment(self, v: Float64, squares: Float64) -> Float64:
        return v - (1 - self.beta2) * squares * np.sign(v - squares)
