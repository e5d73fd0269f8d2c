"""The filter by tags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fma_core.selection.candidate import Candidate
from fma_core.selection.eligibility.filter import Filter, filters
from fma_core.selection.refusal import Refusal


@filters.register("tags")
@dataclass(frozen=True)
class Tags(Filter):
    """Clients that have one of `any_of`, all of `all_of` and none of `none_of`; an empty list is no condition.

    >>> Tags(all_of=("eu", "beta")).refuse(Candidate("phone", tags=frozenset({"eu"}))).detail
    'the client has not the tags beta'
    """

    source: ClassVar[str] = "fma"

    any_of: Annotated[tuple[str, ...], "tags of which the client has at least one"] = ()
    all_of: Annotated[tuple[str, ...], "tags that the client has"] = ()
    none_of: Annotated[tuple[str, ...], "tags that the client does not have"] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.any_of or self.all_of or self.none_of):
            raise ValueError("any_of, all_of or none_of must name a tag")
        if both := sorted({*self.any_of, *self.all_of} & {*self.none_of}):
            raise ValueError(f"none_of must not name a tag that is also asked for, found {', '.join(both)}")

    def refuse(self, candidate: Candidate) -> Refusal | None:
        tags = candidate.tags
        if self.any_of and tags.isdisjoint(self.any_of):
            return Refusal("tags", f"the client has none of the tags {', '.join(self.any_of)}")
        if missing := [tag for tag in self.all_of if tag not in tags]:
            return Refusal("tags", f"the client has not the tags {', '.join(missing)}")
        if unwanted := [tag for tag in self.none_of if tag in tags]:
            return Refusal("tags", f"the client has the tags {', '.join(unwanted)}, which are left out")
        return None
