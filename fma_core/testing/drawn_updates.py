"""Models and updates for tests of strategies: the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from fma_core.aggregation.strategy import Strategy
from fma_core.arrays.dtypes import FLOATS, NUMPY_DTYPES
from fma_core.arrays.spec import Arrays, ArraySpec, Spec
from fma_core.in_memory import Update

# All kinds of arrays that a model may have: all widths of floats, a scalar, an empty array, integers, booleans.
MODEL: Mapping[str, NDArray[Any]] = MappingProxyType(
    {
        "bias": np.zeros(5, np.float32),
        "brain": np.zeros(7, NUMPY_DTYPES["bfloat16"]),
        "bytes": np.zeros(4, np.uint8),
        "count": np.zeros((), np.int64),
        "double": np.zeros((), np.float64),
        "empty": np.zeros((0, 3), np.float32),
        "half": np.zeros(7, np.float16),
        "mask": np.zeros(3, np.bool_),
        "weights": np.zeros((16, 20), np.float32),
    }
)
Metric = Callable[[str, int], float]


def in_float64(model: Arrays) -> Arrays:
    """The same model without the rounding of narrow dtypes."""
    return {name: array.astype(np.float64) if is_float(array) else array for name, array in model.items()}


def is_float(array: NDArray[Any]) -> bool:
    return array.dtype.name in FLOATS


def draw_updates(
    strategy: Strategy, model: Arrays, count: int, *, metric: Metric, seed: int = 0
) -> list[Update]:
    """Ordinary updates for a model: values around 0.3, different clients, examples, metrics and ages."""
    rng = np.random.default_rng(seed)
    arrays = strategy.update_spec(Spec.of(model)).arrays
    clients = clients_of(strategy, count)
    return [
        Update(
            {array.name: _ordinary(rng, array) for array in arrays},
            num_examples=int(rng.integers(1, 50)),
            client=clients[index],
            metrics={name: metric(name, index) for name in strategy.aggregator.required_metrics},
            staleness=index % 3,
        )
        for index in range(count)
    ]


def draw_extremes(updates: Sequence[Update], seed: int, share: float) -> list[Update]:
    """The same updates with a share of their values replaced by zeros, denormal and enormous numbers."""
    rng = np.random.default_rng(seed)
    return [
        replace(
            update, arrays={name: _with_extremes(rng, array, share) for name, array in update.arrays.items()}
        )
        for update in updates
    ]


def map_floats(
    update: Update, change: Callable[[str, NDArray[Any]], NDArray[Any]], *, only: Sequence[str] | None = None
) -> Update:
    """The update with its floating-point arrays (or some of them) changed."""
    arrays = {
        name: change(name, array) if is_float(array) and (only is None or name in only) else array
        for name, array in update.arrays.items()
    }
    return replace(update, arrays=arrays)


def map_floats_of(model: Arrays, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Arrays:
    return {name: change(array) if is_float(array) else array for name, array in model.items()}


def clients_of(strategy: Strategy, count: int) -> list[str]:
    """Names of clients, with those that the rule requires at the end."""
    others = [f"client-{index}" for index in range(count)]
    return [*others, *strategy.aggregator.required_clients][-count:]


def _ordinary(rng: np.random.Generator, array: ArraySpec) -> NDArray[Any]:
    if array.dtype in FLOATS:
        return rng.normal(0.3, 1.0, array.shape).astype(array.numpy_dtype)
    return rng.integers(0, 2 if array.dtype == "bool" else 10, array.shape).astype(array.numpy_dtype)


def _with_extremes(rng: np.random.Generator, array: NDArray[Any], share: float) -> NDArray[Any]:
    chosen = rng.random(array.shape) < share
    return np.where(chosen, rng.choice(_extremes(array.dtype), array.shape), array).astype(array.dtype)


def _extremes(dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.name in FLOATS:
        info: Any = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
        values = [0.0, -0.0, info.smallest_subnormal, -info.smallest_subnormal, info.max, -info.max, info.eps]
    elif dtype == np.bool_:
        values = [False, True]
    else:
        values = [np.iinfo(dtype).min, np.iinfo(dtype).max, 0]
    return np.array(values, dtype)
