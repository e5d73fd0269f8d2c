"""The selector of clients from every group, in proportion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from fma_core.selection.candidate import Candidate
from fma_core.selection.cohort.draw import draw
from fma_core.selection.cohort.selector import Choice, Pool, Selector, selectors


@selectors.register("stratified")
@dataclass(frozen=True)
class Stratified(Selector):
    """Clients of each group in proportion to its size, drawn at random within the group.

    Shares are rounded by largest remainder, at random among equal remainders. A client belongs to the group of its
    organisation, or of the first of `tags` that it has; clients without one are a group of their own.

    >>> from fma_core.selection import Candidate, select
    >>> clients = [Candidate(f"{name}{i}", organisation=name) for name, n in (("a", 4), ("b", 2)) for i in range(n)]
    >>> chosen = select(clients, selector=Stratified(), num=3, seed=0, round_number=1).chosen
    >>> [name[0] for name in chosen]
    ['a', 'a', 'b']
    """

    source: ClassVar[str] = "fma; shares by Hamilton's method (largest remainder)"

    by: Annotated[Literal["organisation", "tags"], "the fact that makes a group"] = "organisation"
    tags: Annotated[tuple[str, ...], "the tags that make groups; the first that a client has counts"] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.by == "tags") != bool(self.tags):
            raise ValueError("tags must name the groups when by is 'tags', and must be empty otherwise")

    def choose(self, pool: Pool, rng: np.random.Generator) -> Choice:
        strata: dict[str, list[str]] = {}
        for candidate in pool.candidates:
            strata.setdefault(self._stratum_of(candidate), []).append(candidate.client)
        groups = [strata[name] for name in sorted(strata)]
        chosen: set[str] = set()
        for group, quota in zip(groups, quotas([*map(len, groups)], pool.num_wanted, rng), strict=True):
            chosen.update(group[index] for index in draw(len(group), quota, rng))
        return Choice(frozenset(chosen))

    def _stratum_of(self, candidate: Candidate) -> str:
        if self.by == "organisation":
            return candidate.organisation or ""
        return next((tag for tag in self.tags if tag in candidate.tags), "")


def quotas(sizes: Sequence[int], num: int, rng: np.random.Generator) -> list[int]:
    """The number to take from each group, `num` in all: proportional to the sizes, and never more than there are.

    Computed in integers, so that equal remainders are equal. num: at most the sum of the sizes.
    """
    total = sum(sizes)
    shares = [divmod(size * num, total) for size in sizes]
    lots = rng.random(len(sizes))
    order = sorted(range(len(sizes)), key=lambda group: (-shares[group][1], lots[group]))
    rounded = [whole for whole, _ in shares]
    for group in order[: num - sum(rounded)]:
        rounded[group] += 1
    return rounded
