"""The contract of every rule, and tests of this one."""

import numpy as np
from mad_filtered_mean import MadFilteredMean

from fma_core.in_memory import fold_arrays
from fma_core.testing import AggregatorContract


class TestContract(AggregatorContract):
    part = MadFilteredMean(width=2.0)
    is_scale_equivariant = True
    is_exact = True


def test_values_of_a_column_by_hand() -> None:
    # The median is 3, the distances are 2, 1, 0, 1 and 97, and their median is 1: values within 2 · 1.4826 are kept.
    updates = [{"w": np.array([value])} for value in (1.0, 2.0, 3.0, 4.0, 100.0)]
    assert fold_arrays(MadFilteredMean(width=2.0), updates)["w"] == 2.5


def test_without_attackers_it_is_nearly_the_mean_and_with_them_near_the_honest_ones() -> None:
    honest = np.random.default_rng(0).normal(size=(20, 500))
    attacked = np.concatenate([honest, np.full((9, 500), 1e6)])
    for rows in (honest, attacked):
        result = fold_arrays(MadFilteredMean(), [{"w": row} for row in rows])["w"]
        assert np.abs(result - honest.mean(axis=0)).mean() < 0.05
