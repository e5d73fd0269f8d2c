"""FedProx: the clients stay near the model that they were given; the server takes the mean.

Source: Li et al. 2020, arXiv:1812.06127. A client minimises F_i(x) + (μ / 2) ‖x − x_base‖². The paper draws clients
in proportion to their examples and takes the plain mean; who answers is not ours to draw, so the mean is weighted
instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from fma_core.aggregation.aggregators.aggregator import aggregators
from fma_core.aggregation.aggregators.mean import Mean
from fma_core.parameters import Bounds


@aggregators.register("fedprox")
@dataclass(frozen=True)
class FedProx(Mean):
    """The mean by number of examples; clients are told mu, the weight of their proximal term."""

    source: ClassVar[str] = "Li et al. 2020 (FedProx), arXiv:1812.06127"

    mu: Annotated[
        float, Bounds(ge=0), "what a client pays for moving away from the model, times ‖x − x_base‖² / 2"
    ] = 0.01

    @property
    def client_config(self) -> Mapping[str, Any]:
        return {"mu": self.mu}
