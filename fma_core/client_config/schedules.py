"""Schedules: a number that depends on the round, such as a learning rate that falls."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, ClassVar

from fma_core.parameters import Bounds, CheckedPart
from fma_core.registry import Registry

Number = Annotated[float, Bounds(ge=-1e100, le=1e100)]
Factor = Annotated[float, Bounds(gt=0, le=1), "what it is multiplied with"]
NumRounds = Annotated[int, Bounds(ge=2, le=1_000_000_000), "the round in which it has arrived"]


@dataclass(frozen=True)
class Schedule(CheckedPart, ABC):
    """A number by round, from round 1 on; its subclasses are frozen dataclasses whose fields are its parameters."""

    source: ClassVar[str] = ""

    rounded: Annotated[bool, "whether to give the nearest integer (local epochs, a batch size)"] = field(
        default=False, kw_only=True
    )

    def at(self, round_number: int) -> float | int:
        """The number in this round; round_number: 1 or more."""
        number = self.number(round_number)
        return round(number) if self.rounded else number

    @abstractmethod
    def number(self, round_number: int) -> float: ...


schedules: Registry[Schedule] = Registry("schedule", "fma.schedules")


@schedules.register("constant")
@dataclass(frozen=True)
class Constant(Schedule):
    """The same in every round."""

    source: ClassVar[str] = "FMA"

    value: Annotated[Number, "the number"]

    def number(self, round_number: int) -> float:
        return self.value


@schedules.register("piecewise")
@dataclass(frozen=True)
class Piecewise(Schedule):
    """One number up to a round, another one from then on, and so forth."""

    source: ClassVar[str] = "the usual steps by hand; He et al. 2016, arXiv:1512.03385, section 3.4"

    values: Annotated[tuple[Number, ...], "the numbers, in order"]
    starts: Annotated[
        tuple[Annotated[int, Bounds(ge=2, le=1_000_000_000)], ...],
        "the rounds in which the second number begins, the third, and so forth",
    ] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.values) != len(self.starts) + 1:
            raise ValueError(
                f"values must be one more than starts, {len(self.starts) + 1}; found {len(self.values)}"
            )
        if any(after <= before for before, after in pairwise(self.starts)):
            raise ValueError(f"starts must rise; found {list(self.starts)!r:.80}")

    def number(self, round_number: int) -> float:
        return self.values[bisect_right(self.starts, round_number)]


@schedules.register("step")
@dataclass(frozen=True)
class Step(Schedule):
    """Multiplied with a factor every so many rounds: initial · factor^⌊(round − 1) / every⌋."""

    source: ClassVar[str] = "step decay; He et al. 2016, arXiv:1512.03385, section 3.4"

    initial: Annotated[Number, "the number in the first round"]
    every: Annotated[int, Bounds(ge=1, le=1_000_000_000), "after how many rounds each time"]
    factor: Factor = 0.1

    def number(self, round_number: int) -> float:
        return self.initial * self.factor ** ((round_number - 1) // self.every)


@schedules.register("exponential")
@dataclass(frozen=True)
class Exponential(Schedule):
    """Multiplied with a factor in each round: initial · factor^(round − 1)."""

    source: ClassVar[str] = "McMahan et al. 2017 (FedAvg), arXiv:1602.05629, section 3"

    initial: Annotated[Number, "the number in the first round"]
    factor: Factor = 0.99

    def number(self, round_number: int) -> float:
        return self.initial * self.factor ** (round_number - 1)


@schedules.register("inverse")
@dataclass(frozen=True)
class Inverse(Schedule):
    """initial / (1 + decay · (round − 1)): it falls slowly enough for FedAvg to arrive, and fast enough to stay."""

    source: ClassVar[str] = "Li et al. 2020 (On the convergence of FedAvg), arXiv:1907.02189, theorem 1"

    initial: Annotated[Number, "the number in the first round"]
    decay: Annotated[float, Bounds(ge=0, le=1e100), "how fast it falls"] = 1.0

    def number(self, round_number: int) -> float:
        return self.initial / (1 + self.decay * (round_number - 1))


@schedules.register("linear")
@dataclass(frozen=True)
class Linear(Schedule):
    """Along a line from the first round to round `num_rounds`, and then constant; it may rise, as a warm-up does."""

    source: ClassVar[str] = "Goyal et al. 2017 (gradual warm-up), arXiv:1706.02677, section 2.2"

    initial: Annotated[Number, "the number in the first round"]
    final: Annotated[Number, "the number in round `num_rounds` and after it"]
    num_rounds: NumRounds

    def number(self, round_number: int) -> float:
        return _between(self.initial, self.final, _share(round_number, 1, self.num_rounds))


@schedules.register("cosine")
@dataclass(frozen=True)
class Cosine(Schedule):
    """Along half a cosine from the first round to round `num_rounds`, and then constant."""

    source: ClassVar[str] = "Loshchilov and Hutter 2017 (SGDR), arXiv:1608.03983, equation 5"

    initial: Annotated[Number, "the number in the first round"]
    num_rounds: NumRounds
    final: Annotated[Number, "the number in round `num_rounds` and after it"] = 0.0

    def number(self, round_number: int) -> float:
        return _between(self.initial, self.final, _cosine(_share(round_number, 1, self.num_rounds)))


@schedules.register("warmup_cosine")
@dataclass(frozen=True)
class WarmupCosine(Schedule):
    """Along a line up to `peak` in round `num_warmup`, then along half a cosine down to round `num_rounds`."""

    source: ClassVar[str] = (
        "Goyal et al. 2017, arXiv:1706.02677; Loshchilov and Hutter 2017, arXiv:1608.03983"
    )

    peak: Annotated[Number, "the number in round `num_warmup`"]
    num_warmup: Annotated[int, Bounds(ge=2, le=1_000_000_000), "the round in which the peak is reached"]
    num_rounds: NumRounds
    initial: Annotated[Number, "the number in the first round"] = 0.0
    final: Annotated[Number, "the number in round `num_rounds` and after it"] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_warmup >= self.num_rounds:
            raise ValueError(f"num_warmup must be less than num_rounds, {self.num_rounds}")

    def number(self, round_number: int) -> float:
        if round_number <= self.num_warmup:
            return _between(self.initial, self.peak, _share(round_number, 1, self.num_warmup))
        return _between(
            self.peak, self.final, _cosine(_share(round_number, self.num_warmup, self.num_rounds))
        )


def _share(round_number: int, first: int, last: int) -> float:
    """How far a round is on the way between two others: 0 … 1."""
    return min(1.0, (round_number - first) / (last - first))


def _between(initial: float, final: float, share: float) -> float:
    # The ends exactly, and never beyond them.
    return initial * (1 - share) + final * share


def _cosine(share: float) -> float:
    return (1 - math.cos(math.pi * share)) / 2
