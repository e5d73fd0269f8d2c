"""The weights of the values of arrays that are averaged and not stepped: integers, booleans, running statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

import numpy as np

from fma_core.aggregation.aggregators import Float64
from fma_core.aggregation.aggregators.mean import lowest_terms


@dataclass(frozen=True, eq=False)
class ValueWeights:
    """One set of weights: as float64 for floating-point arrays, and not rounded for the exact mean of integers."""

    floats: Float64
    exact: tuple[int, ...]

    @classmethod
    def of(cls, counts: Sequence[int], discounts: Float64 | None) -> ValueWeights:
        """Counts in lowest terms, each times its discount."""
        floats = np.array(counts, np.float64)
        if discounts is None:
            return cls(floats, tuple(counts))
        products = [
            count * Fraction(factor) for count, factor in zip(counts, discounts.tolist(), strict=True)
        ]
        denominator = lcm(*(product.denominator for product in products))
        # Divided by the largest that counts: equally old updates then have the weights of fresh ones.
        discounts = np.where(floats > 0, discounts, 0.0)
        largest = discounts.max(initial=0.0)
        shares = discounts / largest if largest > 0 else discounts
        return cls(floats * shares, tuple(lowest_terms([int(product * denominator) for product in products])))
