"""The choice of the arrays that are shared; personal ones never leave their client.

Source: Li et al. 2021 (FedBN), arXiv:2102.07623; Sun et al. 2024 (FFA-LoRA), arXiv:2403.12313, is `only` with LoRA's B.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, ClassVar

from fma_core.aggregation.stages.stage import ArrayStage, stages

Patterns = Annotated[tuple[str, ...], "names; * matches anything, ? one character"]


@stages.register("only")
@dataclass(frozen=True)
class Only(ArrayStage):
    """Sends and aggregates only the arrays whose names match one of the patterns; the others stay as they are.

    >>> Only(("*lora_B*",)).includes("query.lora_B.weight"), Only(("*lora_B*",)).includes("query.lora_A.weight")
    (True, False)
    """

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
    """Keeps the arrays whose names match one of the patterns personal: they are neither sent nor aggregated.

    >>> Exclude(("bn*",)).includes("conv1.weight"), Exclude(("bn*",)).includes("bn1.weight")
    (True, False)
    """

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
