"""Facts of many candidates as arrays: NaN where nobody knows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fma_core.selection.candidate import Candidate

Float64 = npt.NDArray[np.float64]

# Clients report what they like. Products of facts within this bound stay finite.
LARGEST, SMALLEST = 1e100, 1e-9


def facts(candidates: Sequence[Candidate], name: str) -> Float64:
    """A number of each candidate; what is not finite is not known."""
    found = np.array([getattr(candidate, name) for candidate in candidates], np.float64)
    return np.where(np.isfinite(found), np.clip(found, -LARGEST, LARGEST), np.nan)


def positive_facts(candidates: Sequence[Candidate], name: str) -> Float64:
    """A duration or a speed of each candidate: what is not greater than 0 is not known."""
    found = facts(candidates, name)
    return np.where(found > 0, np.maximum(found, SMALLEST), np.nan)


def assume_median(values: Float64, otherwise: float) -> Float64:
    """The values, with the median of the known ones, or `otherwise`, for those that nobody knows."""
    known = values[~np.isnan(values)]
    return np.where(np.isnan(values), np.median(known) if known.size else otherwise, values)


def example_weights(candidates: Sequence[Candidate]) -> Float64:
    """Weights ∝ the number of examples. A client that never said how many it has counts like the median of the others.

    Refusing it would leave it without a turn for ever, because numbers of examples come with updates.
    """
    return np.maximum(assume_median(facts(candidates, "num_examples"), 1.0), 0.0)
