"""q-FedAvg: clients for which the model is bad count for more.

    δ_i = F_i^q L (x − x_i)
    h_i = q F_i^(q−1) ‖L (x − x_i)‖² + L F_i^q
    x ← x − Σ δ_i / Σ h_i

Source: Li et al. 2020, arXiv:1905.10497, algorithm 2. F_i is client i's loss before it trains, L = 1 / its learning
rate; q = 0 is the plain mean. As there, the number of examples plays no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from fma_core.aggregation.aggregators.aggregator import Aggregator, Block, Float64, Rows, aggregators
from fma_core.parameters import Bounds

# Beyond these a power of one client's loss overflows, or outweighs everybody else's.
MIN_LOSS, MAX_LOSS = 1e-12, 1e12


@aggregators.register("qfedavg")
@dataclass(frozen=True)
class QFedAvg(Aggregator[Float64]):
    """The changes weighted by the q-th power of each client's loss, so that the losses become more alike."""

    source: ClassVar[str] = "Li et al. 2020 (q-FedAvg), arXiv:1905.10497"
    integers: ClassVar[Literal["mean", "median"]] = "mean"
    takes_mixed_rows: ClassVar[bool] = False
    required_metrics: ClassVar[tuple[str, ...]] = ("base_loss",)

    q: Annotated[float, Bounds(ge=0), "how much fairness counts; 0 is the plain mean"] = 0.2
    client_learning_rate: Annotated[float, Bounds(gt=0), "the clients' learning rate, 1 / L"] = 0.1

    def check_metric(self, name: str, value: float) -> None:
        if not (value == 0 or MIN_LOSS <= value <= MAX_LOSS):
            raise ValueError(
                f"base_loss must be 0 or a number from {MIN_LOSS:g} to {MAX_LOSS:g}, found {value!r}"
            )
        if value == 0 and 0 < self.q < 1:
            # F^(q−1) is infinite: this one client would keep the model where it is.
            raise ValueError(f"base_loss must be greater than 0 when q is between 0 and 1 (it is {self.q})")

    def measure(self, rows: Rows) -> Float64:
        """The factors of Δ_i = x_i − x in −Σ δ_i / Σ h_i."""
        losses, lipschitz = rows.metric("base_loss"), 1 / self.client_learning_rate
        # Without q nobody's norm counts, and without it nothing has to be read.
        squared_norms = rows.squared_norms() if self.q > 0 else np.zeros(rows.num_rows)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            powers = losses**self.q
            slopes = self.q * losses ** (self.q - 1) if self.q > 0 else np.zeros(rows.num_rows)
            h = slopes * (lipschitz**2 * squared_norms) + lipschitz * powers
            total = np.add.reduce(h)
            # Only losses of 0 everywhere make it 0: there is nothing left to learn, and no step.
            return np.zeros(rows.num_rows) if total == 0 else lipschitz * powers / total

    def combine(self, block: Block, decision: Float64) -> Float64:
        return block.weighted_sum(decision)

    def integer_weights(self, num_examples: Sequence[int]) -> Sequence[int]:
        return [1] * len(num_examples)
