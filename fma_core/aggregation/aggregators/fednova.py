"""FedNova: clients that took more steps than others do not move the model further.

    x ← x + τ_eff Σ p_i Δ_i / τ_i,   τ_eff = Σ p_i τ_i,   p_i = n_i / Σ n_j

Source: Wang et al. 2020, arXiv:2007.07481. τ_i is ‖a_i‖₁, the sum of the weights of the client's gradients in its
step: the number of its steps for plain SGD. A client with momentum or a proximal term reports its own ‖a_i‖₁ as
num_steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from fma_core.aggregation.aggregators.aggregator import (
    Aggregator,
    Block,
    Float64,
    Rows,
    RowWeights,
    aggregators,
)
from fma_core.aggregation.aggregators.mean import Weights, lowest_terms

MAX_STEPS = 2**53


@aggregators.register("fednova")
@dataclass(frozen=True)
class FedNova(Aggregator[Weights]):
    """The mean of the changes by number of examples, each normalised by the number of steps that its client took.

    >>> import numpy as np
    >>> from fma_core.in_memory import Update, fold_arrays
    >>> one_step = Update({"w": np.array([1.0])}, metrics={"num_steps": 1})
    >>> three_steps = Update({"w": np.array([-3.0])}, metrics={"num_steps": 3})
    >>> fold_arrays(FedNova(), [one_step, three_steps])["w"]  # the plain mean would be −1
    array([0.])
    """

    source: ClassVar[str] = "Wang et al. 2020 (FedNova), arXiv:2007.07481"
    integers: ClassVar[Literal["mean", "median"]] = "mean"
    # A mixed row is the work of clients with different numbers of steps.
    takes_mixed_rows: ClassVar[bool] = False
    required_metrics: ClassVar[tuple[str, ...]] = ("num_steps",)
    lengthening_metric: ClassVar[str] = "num_steps"

    def check_metric(self, name: str, value: float) -> None:
        # ‖a_i‖₁ need not be a whole number; the first step counts as 1.
        if not 1 <= value <= MAX_STEPS:
            raise ValueError(f"num_steps must be a number from 1 to 2**53, found {value!r}")

    def measure(self, rows: Rows) -> Weights:
        num_examples = np.array(lowest_terms(rows.num_examples), dtype=np.float64)
        num_steps = rows.metric("num_steps")
        total = float(np.add.reduce(num_examples))
        with np.errstate(over="ignore", invalid="ignore"):
            effective_steps = np.add.reduce(num_examples * num_steps) / total
            # Equal numbers of steps are factors of exactly 1, and the result that of the mean.
            return Weights(num_examples * (effective_steps / num_steps), total)

    def combine(self, block: Block, decision: Weights) -> Float64:
        result = block.weighted_sum(decision.values)
        return np.divide(result, decision.total, out=result)

    def row_weights(self, decision: Weights, num_rows: int) -> RowWeights:
        return RowWeights(decision.values / decision.total)
