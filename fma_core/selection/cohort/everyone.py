"""All clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fma_core.selection.cohort.selector import Choice, Pool, Selector, selectors


@selectors.register("everyone")
@dataclass(frozen=True)
class Everyone(Selector):
    """Every eligible client, however many are wanted. FMA's clients, which never ask to join, need it."""

    source: ClassVar[str] = "Capital One's Federated Model Aggregation"
    takes_num: ClassVar[bool] = False

    def choose(self, pool: Pool, rng: np.random.Generator) -> Choice:
        return Choice(frozenset(candidate.client for candidate in pool.candidates))
