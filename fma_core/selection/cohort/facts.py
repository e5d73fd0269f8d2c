"""Facts of many candidates as arrays: NaN where a fact is not known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fma_core.selection.candidate import Candidate

Float64 = npt.NDArray[np.float64]

# Clients may report any number. Products of facts within this bound stay finite.
LARGEST, SMALLEST = 1e100, 1e-9


def facts(candidates: Sequence[Candidate], name: str) -> Float64:
    """A numeric fact of each candidate; a number that is not finite counts as not known."""
    numbers = np.array([getattr(candidate, name) for candidate in candidates], np.float64)
    return np.where(np.isfinite(numbers), np.clip(numbers, -LARGEST, LARGEST), np.nan)


def positive_facts(candidates: Sequence[Candidate], name: str) -> Float64:
    """A duration or a speed of each candidate; a number that is not greater than 0 counts as not known."""
    numbers = facts(candidates, name)
    return np.where(numbers > 0, np.maximum(numbers, SMALLEST), np.nan)


def assume_median(values: Float64, otherwise: float) -> Float64:
    """The values; unknown ones become the median of the known ones, or `otherwise` when there are none."""
    known = values[~np.isnan(values)]
    return np.where(np.isnan(values), np.median(known) if known.size else otherwise, values)


def example_weights(candidates: Sequence[Candidate]) -> Float64:
    """Weights ∝ the number of examples. A client that never reported its number counts like the median of the others.

    Without a weight it would never get a turn, because clients report their numbers with updates.
    """
    return np.maximum(assume_median(facts(candidates, "num_examples"), 1.0), 0.0)
