"""Rows and blocks of a matrix in memory, to call `measure`, `combine` and `map_rows` directly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fma_core.aggregation.aggregators import Block, Float64
from fma_core.aggregation.aggregators.aggregator import Floats


@dataclass(frozen=True, eq=False)
class MatrixBlock:
    """All columns of a matrix (rows, columns) as one block."""

    values: Float64
    states: Mapping[str, Float64] = field(default_factory=dict)
    payloads: Mapping[str, Float64] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        return len(self.values)

    @property
    def num_columns(self) -> int:
        return int(self.values.shape[1])

    @property
    def place(self) -> int:
        return 0

    def row(self, index: int) -> Float64:
        row: Float64 = self.values[index].copy()
        return row

    def matrix(self) -> Float64:
        return self.values.copy()

    def sorted_columns(self, rows: Sequence[int] | None = None) -> Floats:
        return np.ascontiguousarray(self.order_statistics(rows=rows).T)

    def order_statistics(self, ranks: slice = slice(None), rows: Sequence[int] | None = None) -> Floats:
        chosen = self.values if rows is None else self.values[list(rows)]
        return np.sort(chosen, axis=0)[ranks]

    def weighted_sum(self, weights: Sequence[float] | Float64) -> Float64:
        total = np.zeros(self.num_columns)
        for row, weight in zip(self.values, weights, strict=True):
            total += weight * row if weight else 0.0
        return total

    def state(self, name: str) -> Float64:
        return self.states[name]

    def payload(self, name: str) -> Block:
        return MatrixBlock(self.payloads[name])


@dataclass(frozen=True, eq=False)
class MatrixRows:
    """The rows of a matrix; by default with one example each, from the newest model, of clients "0", "1", …"""

    values: Float64
    num_examples: tuple[int, ...] = ()
    staleness: tuple[int, ...] = ()
    discounts: Float64 | None = None
    clients: tuple[str, ...] = ()
    num_clients: int = 0
    round_number: int = 1
    metrics: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.values)
        defaults = {
            "num_examples": (1,) * count,
            "staleness": (0,) * count,
            "clients": tuple(str(index) for index in range(count)),
            "num_clients": count,
        }
        for name, value in defaults.items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)

    @property
    def num_rows(self) -> int:
        return len(self.values)

    @property
    def num_columns(self) -> int:
        return int(self.values.shape[1])

    def metric(self, name: str) -> Float64:
        return np.array(self.metrics[name], dtype=np.float64)

    def squared_norms(self) -> Float64:
        with np.errstate(over="ignore"):
            norms: Float64 = np.add.reduce(self.values**2, axis=1)
        return norms

    def gram(self) -> Float64:
        with np.errstate(over="ignore", invalid="ignore"):
            gram: Float64 = np.einsum("ij,kj->ik", self.values, self.values)
        return gram

    def reduce(self, measure: Callable[[Block], Float64]) -> Float64 | None:
        return measure(MatrixBlock(self.values)) if self.num_columns else None
