"""q-FedAvg: clients with a larger loss count more.

    δ_i = F_i^q L (x − x_i)
    h_i = q F_i^(q−1) ‖L (x − x_i)‖² + L F_i^q
    x ← x − Σ δ_i / Σ h_i

Source: Li et al. 2020, arXiv:1905.10497, algorithm 2. F_i is client i's loss before it trains, L = 1 / its learning
rate; q = 0 is the plain mean. As in the paper, the number of examples plays no part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from fma_core.aggregation.aggregators.aggregator import (
    Aggregator,
    Block,
    Float64,
    Rows,
    RowWeights,
    aggregators,
)
from fma_core.parameters import Bounds

# Beyond these bounds a power of one client's loss overflows, or outweighs all other clients.
MIN_LOSS, MAX_LOSS = 1e-12, 1e12
# Beyond this power of ten, F^q is computed from losses divided by the largest one. Not below it: the last bits differ,
# and rounds that were published before can still be verified.
MAX_EXPONENT = 100


@aggregators.register("qfedavg")
@dataclass(frozen=True)
class QFedAvg(Aggregator[Float64]):
    """The changes weighted by the q-th power of each client's loss, so that the losses become more equal.

    >>> import numpy as np
    >>> from fma_core.in_memory import Update, fold_arrays
    >>> good = Update({"w": np.array([1.0])}, metrics={"base_loss": 2.0})
    >>> bad = Update({"w": np.array([-1.0])}, metrics={"base_loss": 4.0})
    >>> fold_arrays(QFedAvg(q=1.0, client_learning_rate=1.0), [good, bad])["w"]
    array([-0.25])

    The steps add up to 2 · 1 + 4 · (−1) = −2, and h to (1 + 2) + (1 + 4) = 8.
    """

    source: ClassVar[str] = "Li et al. 2020 (q-FedAvg), arXiv:1905.10497"
    integers: ClassVar[Literal["mean", "median"]] = "mean"
    takes_mixed_rows: ClassVar[bool] = False
    required_metrics: ClassVar[tuple[str, ...]] = ("base_loss",)

    q: Annotated[float, Bounds(ge=0), "the weight of fairness; 0: the plain mean"] = 0.2
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
        # A common factor of the losses cancels in Σ δ / Σ h, but for the one F that is missing in F^(q−1).
        largest = losses.max()
        unit = largest if largest > 0 and self.q * abs(math.log10(largest)) > MAX_EXPONENT else 1.0
        losses /= unit
        # With q = 0 no norm counts, and nothing has to be read.
        squared_norms = rows.squared_norms() if self.q > 0 else np.zeros(rows.num_rows)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            powers = losses**self.q
            slopes = self.q * losses ** (self.q - 1) / unit if self.q > 0 else np.zeros(rows.num_rows)
            h = slopes * (lipschitz**2 * squared_norms) + lipschitz * powers
            total = np.add.reduce(h)
            # It is 0 only when all losses are 0: nothing is left to learn, and there is no step.
            return np.zeros(rows.num_rows) if total == 0 else lipschitz * powers / total

    def combine(self, block: Block, decision: Float64) -> Float64:
        return block.weighted_sum(decision)

    def row_weights(self, decision: Float64, num_rows: int) -> RowWeights:
        # A client without a loss has a weight of 0 because the model serves it well.
        return RowWeights(decision, is_rejected=np.zeros(num_rows, np.bool_))

    def integer_weights(self, num_examples: Sequence[int]) -> Sequence[int]:
        return [1] * len(num_examples)
