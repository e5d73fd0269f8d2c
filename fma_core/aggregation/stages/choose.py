"""Which arrays are shared: personal ones never leave their client.

Source: Li et al. 2021 (FedBN), arXiv:2102.07623; Sun et al. 2024 (FFA-LoRA), arXiv:2403.12313, is `only` with LoRA's B.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, ClassVar

from fma_core.aggregation.stages.stage import ArrayStage, stages

Patterns = Annotated[tuple[str, ...], "names, in which * stands for anything and ? for one character"]


@stages.register("only")
@dataclass(frozen=True)
class Only(ArrayStage):
    """Only arrays whose names match one of the patterns are sent and aggregated; the others stay as they are."""

    source: ClassVar[str] = "Sun et al. 2024 (FFA-LoRA), arXiv:2403.12313"

    patterns: Patterns

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_patterns(self.patterns)

    def includes(self, array: str) -> bool:
        return any(fnmatchcase(array, pattern) for pattern in self.patterns)


@stages.register("exclude")
@dataclass(frozen=True)
class Exclude(ArrayStage):
    """Arrays whose names match one of the patterns are personal: neither sent nor aggregated."""

    source: ClassVar[str] = "Li et al. 2021 (FedBN), arXiv:2102.07623"

    patterns: Patterns

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_patterns(self.patterns)

    def includes(self, array: str) -> bool:
        return not any(fnmatchcase(array, pattern) for pattern in self.patterns)


def _require_patterns(patterns: tuple[str, ...]) -> None:
    if not patterns or not all(patterns):
        raise ValueError(f"patterns must be one or more names that are not empty, found {list(patterns)}")
