"""Random draws of clients, from uniform numbers alone.

A selection must be repeatable years later. `Generator.random` gives the bits of PCG64, which are the same in every
version of numpy; `choice` and `permutation` may change (NEP 19).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.intp]


def draw(num_of: int, num: int, rng: np.random.Generator) -> Indices:
    """Draw `num` of the numbers below `num_of` without replacement, all equally likely."""
    return np.argsort(rng.random(num_of), kind="stable")[:num]


def draw_weighted(weights: npt.ArrayLike, num: int, rng: np.random.Generator) -> Indices:
    """Draw `num` places of `weights`, one after another without replacement, each with probability ∝ its weight.

    The first arrivals of exponential times at these rates are such a draw. Places without weight come last, in random
    order.
    Source: Efraimidis and Spirakis 2006, Information Processing Letters 97(5), algorithm A-Res.
    """
    rates = np.asarray(weights, np.float64)
    uniform = rng.random(len(rates))
    arrivals = np.full(len(rates), np.inf)
    with np.errstate(over="ignore"):  # a rate that is almost none
        np.divide(-np.log1p(-uniform), rates, out=arrivals, where=rates > 0)
    return np.lexsort((uniform, arrivals))[:num]
