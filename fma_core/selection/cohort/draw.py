"""Drawing clients at random, from uniform numbers alone.

`Generator.random` is the bits of PCG64 and has given the same numbers in every version of numpy; how `choice` and
`permutation` use them is numpy's to change (NEP 19), and a round must be chosen again years later.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.intp]


def draw(num_of: int, num: int, rng: np.random.Generator) -> Indices:
    """`num` of the numbers below `num_of`, all equally likely, without replacement."""
    return np.argsort(rng.random(num_of), kind="stable")[:num]


def draw_weighted(weights: npt.ArrayLike, num: int, rng: np.random.Generator) -> Indices:
    """`num` places of `weights`, one after another and without replacement, each with probability ∝ its weight.

    The first of exponential times at these rates are such a draw. Places without weight come last, in random order.
    Source: Efraimidis and Spirakis 2006, Information Processing Letters 97(5), algorithm A-Res.
    """
    rates = np.asarray(weights, np.float64)
    uniform = rng.random(len(rates))
    arrivals = np.full(len(rates), np.inf)
    with np.errstate(over="ignore"):  # a rate that is almost none
        np.divide(-np.log1p(-uniform), rates, out=arrivals, where=rates > 0)
    return np.lexsort((uniform, arrivals))[:num]
