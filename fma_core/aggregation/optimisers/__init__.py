"""Server optimisers."""

from fma_core.aggregation.optimisers.adaptive import FedAdagrad, FedAdam, FedYogi
from fma_core.aggregation.optimisers.optimiser import Optimiser, optimisers
from fma_core.aggregation.optimisers.sgd import FedAvgM, Sgd

__all__ = ["FedAdagrad", "FedAdam", "FedAvgM", "FedYogi", "Optimiser", "Sgd", "optimisers"]
