"""A case: a rule, and a number of updates of a number of float32 parameters, as canonical files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fma_core import Spec, encode

ARRAY = "w"
MEAN_SIZES = ("10x10M", "100x1M", "1000x100k")
ROBUST_SIZES = ("100x1M", "20x1M")
SIZES = {
    "mean": MEAN_SIZES,
    **dict.fromkeys(
        ("median", "trimmed_mean", "krum", "multi_krum", "bulyan", "geometric_median"), ROBUST_SIZES
    ),
}
ATTACKERS = 0.2  # f as a share of the updates: Bulyan bears less than a quarter
BETA = 0.1
FACTORS = {"k": 1_000, "M": 1_000_000}


@dataclass(frozen=True)
class Size:
    """updates x parameters, as in 100x1M."""

    num_updates: int
    num_columns: int

    @classmethod
    def parse(cls, text: str) -> Size:
        updates, columns = text.split("x")
        factor = FACTORS.get(columns[-1], 1)
        return cls(int(updates), int(columns.rstrip("kM")) * factor)

    def __str__(self) -> str:
        for letter, factor in reversed(FACTORS.items()):
            if self.num_columns % factor == 0:
                return f"{self.num_updates}x{self.num_columns // factor}{letter}"
        return f"{self.num_updates}x{self.num_columns}"

    @property
    def update_bytes(self) -> int:
        return self.num_updates * self.model_bytes

    @property
    def model_bytes(self) -> int:
        return self.num_columns * 4


@dataclass(frozen=True)
class Case:
    """folder: where the files of this size are; they are written once for all rules."""

    rule: str
    size: Size
    folder: Path
    has_parent: bool = False

    @property
    def paths(self) -> list[Path]:
        return [self.folder / f"{index}.safetensors" for index in range(self.size.num_updates)]

    @property
    def parent(self) -> Path:
        return self.folder / "parent.safetensors"

    @property
    def spec(self) -> Spec:
        return Spec.of({ARRAY: np.empty(self.size.num_columns, np.float32)})

    @property
    def num_examples(self) -> list[int]:
        numbers: list[int] = np.random.default_rng(1).integers(1, 1000, self.size.num_updates).tolist()
        return numbers

    @property
    def f(self) -> int:
        return int(ATTACKERS * self.size.num_updates)

    @property
    def parameters(self) -> dict[str, Any]:
        if self.rule == "trimmed_mean":
            return {"beta": BETA}
        return {"f": self.f} if self.rule in {"krum", "multi_krum", "bulyan"} else {}


def write_updates(case: Case) -> None:
    """Normal values, and a parent of the same kind."""
    case.folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for path in [case.parent, *case.paths]:
        values = rng.standard_normal(case.size.num_columns, dtype=np.float32)
        path.write_bytes(encode({ARRAY: values}))
