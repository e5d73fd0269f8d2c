"""The independent libraries, as they are published; only what they import and do not need here is left out.

byzfl and FedLab import torchvision and data sets, Blades imports ray, none of it for aggregation: the packages' own
`__init__` is skipped, and Blades' client class, which it needs for `isinstance`, is an empty one.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import types
import warnings
from importlib.metadata import version
from typing import Any

import numpy as np

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)

import torch  # noqa: E402

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)


def _without_init(*packages: str) -> None:
    for name in packages:
        module = types.ModuleType(name)
        found = importlib.util.find_spec(name)
        assert found is not None
        module.__path__ = list(found.submodule_search_locations or [])
        sys.modules[name] = module


_without_init(
    "nvflare",
    "byzfl",
    "blades",
    "blades.aggregators",
    "fedlab.contrib",
    "fedlab.contrib.algorithm",
    "fedlab.contrib.dataset",
)
_client = types.ModuleType("blades.client")
_client.BladesClient = type("BladesClient", (), {})  # type: ignore[attr-defined]
sys.modules["blades.client"] = _client

from blades.aggregators import centeredclipping, fltrust  # noqa: E402, F401
from byzfl.aggregators import aggregators as byzfl  # noqa: E402, F401
from byzfl.aggregators import preaggregators as byzfl_before  # noqa: E402, F401
from fedlab.contrib.algorithm import basic_server, feddyn, fednova, qfedavg, scaffold  # noqa: E402, F401
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays  # noqa: E402
from flwr.server import strategy as flwr_strategy  # noqa: E402, F401
from flwr.server.strategy import aggregate as flwr  # noqa: E402, F401
from nvflare.apis.fl_context import FLContext  # noqa: E402, F401
from nvflare.edge.assessors import buff_model_manager  # noqa: E402, F401

NAMES = {
    name: f"{name} {version(name)}"
    for name in ("flwr", "byzfl", "fedlab", "blades", "nvflare", "numpy", "scipy", "torch")
}
PAPER = "paper, line by line"


def flwr_results(rows: np.ndarray, num_examples: Any = None) -> list[tuple[list[np.ndarray], int]]:
    """Rows as Flower's aggregation functions take them; all with one example when nothing is said."""
    counts = [1] * len(rows) if num_examples is None else list(num_examples)
    return [([row.copy()], int(count)) for row, count in zip(rows, counts, strict=True)]


def flwr_round(strategy: Any, number: int, weights: np.ndarray, num_examples: Any) -> np.ndarray:
    """The weights that a strategy of Flower makes of those that clients send."""
    results = [
        (None, FitRes(Status(Code.OK, ""), ndarrays_to_parameters([row]), int(count), {}))
        for row, count in zip(weights, num_examples, strict=True)
    ]
    parameters, _ = strategy.aggregate_fit(number, results, [])
    return parameters_to_ndarrays(parameters)[0]


def flwr_parameters(weights: np.ndarray) -> Any:
    return ndarrays_to_parameters([weights])


def fedlab_model(num_columns: int) -> torch.nn.Module:
    return torch.nn.Linear(num_columns, 1, bias=False)


def fedlab_server(handler: Any, start: np.ndarray, num_clients: int, **options: Any) -> Any:
    """A server of FedLab whose model is `start`."""
    server = handler(fedlab_model(len(start)), 100, 1.0)
    server.num_clients = num_clients
    server.set_model(torch.tensor(start))
    server.setup_optim(**options)
    return server


class BladesUpdate(_client.BladesClient):  # type: ignore[misc, name-defined]
    """A row as a client of Blades."""

    def __init__(self, row: np.ndarray, *, is_root: bool = False) -> None:
        self._row = torch.tensor(row)
        self._is_root = is_root

    def get_update(self) -> torch.Tensor:
        return self._row

    def is_trusted(self) -> bool:
        return self._is_root
