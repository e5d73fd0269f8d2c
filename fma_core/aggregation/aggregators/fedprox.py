"""FedProx: clients stay near the model that they received; the server takes the mean.

Source: Li et al. 2020, arXiv:1812.06127. A client minimises F_i(x) + (μ / 2) ‖x − x_base‖². The paper draws clients in
proportion to their examples and takes the plain mean. This server does not decide which clients answer, so the mean is
weighted instead.
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
    """The mean by number of examples; clients are told mu, the weight of their proximal term.

    >>> import numpy as np
    >>> from fma_core.in_memory import fold_arrays
    >>> fold_arrays(FedProx(mu=0.1), [{"w": np.array([0.0])}, {"w": np.array([4.0])}])["w"]
    array([2.])
    >>> FedProx(mu=0.1).client_config
    {'mu': 0.1}
    """

    source: ClassVar[str] = "Li et al. 2020 (FedProx), arXiv:1812.06127"

    mu: Annotated[
        float, Bounds(ge=0), "the weight of the penalty ‖x − x_base‖² / 2 for moving away from the model"
    ] = 0.01

    @property
    def client_config(self) -> Mapping[str, Any]:
        return {"mu": self.mu}
