"""Schedules: numbers that depend on the round, such as a falling learning rate."""

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
Factor = Annotated[float, Bounds(gt=0, le=1), "the factor of each step"]
NumRounds = Annotated[int, Bounds(ge=2, le=1_000_000_000), "the round that reaches the final number"]


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
    """The same number in every round.

    >>> Constant(0.1).at(7)
    0.1
    """

    source: ClassVar[str] = "FMA"

    value: Annotated[Number, "the number"]

    def number(self, round_number: int) -> float:
        return self.value


@schedules.register("piecewise")
@dataclass(frozen=True)
class Piecewise(Schedule):
    """One number up to a round, another one from then on, and so forth.

    >>> steps = Piecewise(values=(0.1, 0.01), starts=(10,))
    >>> steps.at(9), steps.at(10)
    (0.1, 0.01)
    """

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
    """Multiplied by a factor after every so many rounds: initial · factor^⌊(round − 1) / every⌋.

    >>> halved = Step(initial=8.0, every=2, factor=0.5)
    >>> [halved.at(round_number) for round_number in (1, 2, 3, 4, 5)]
    [8.0, 8.0, 4.0, 4.0, 2.0]
    """

    source: ClassVar[str] = "step decay; He et al. 2016, arXiv:1512.03385, section 3.4"

    initial: Annotated[Number, "the number in the first round"]
    every: Annotated[int, Bounds(ge=1, le=1_000_000_000), "the number of rounds between two steps"]
    factor: Factor = 0.1

    def number(self, round_number: int) -> float:
        return self.initial * self.factor ** ((round_number - 1) // self.every)


@schedules.register("exponential")
@dataclass(frozen=True)
class Exponential(Schedule):
    """Multiplied by a factor in each round: initial · factor^(round − 1).

    >>> halved = Exponential(initial=8.0, factor=0.5)
    >>> [halved.at(round_number) for round_number in (1, 2, 3)]
    [8.0, 4.0, 2.0]
    """

    source: ClassVar[str] = "McMahan et al. 2017 (FedAvg), arXiv:1602.05629, section 3"

    initial: Annotated[Number, "the number in the first round"]
    factor: Factor = 0.99

    def number(self, round_number: int) -> float:
        return self.initial * self.factor ** (round_number - 1)


@schedules.register("inverse")
@dataclass(frozen=True)
class Inverse(Schedule):
    """initial / (1 + decay · (round − 1)): slow enough for FedAvg to reach the optimum, and fast enough to stay there.

    >>> inverse = Inverse(initial=6.0, decay=1.0)
    >>> [inverse.at(round_number) for round_number in (1, 2, 3)]
    [6.0, 3.0, 2.0]
    """

    source: ClassVar[str] = "Li et al. 2020 (On the convergence of FedAvg), arXiv:1907.02189, theorem 1"

    initial: Annotated[Number, "the number in the first round"]
    decay: Annotated[float, Bounds(ge=0, le=1e100), "how fast it falls"] = 1.0

    def number(self, round_number: int) -> float:
        return self.initial / (1 + self.decay * (round_number - 1))


@schedules.register("linear")
@dataclass(frozen=True)
class Linear(Schedule):
    """Along a line from the first round to round `num_rounds`, and then constant; it may rise, as a warm-up does.

    >>> warm_up = Linear(initial=0.0, final=4.0, num_rounds=5)
    >>> [warm_up.at(round_number) for round_number in (1, 2, 5, 9)]
    [0.0, 1.0, 4.0, 4.0]
    """

    source: ClassVar[str] = "Goyal et al. 2017 (gradual warm-up), arXiv:1706.02677, section 2.2"

    initial: Annotated[Number, "the number in the first round"]
    final: Annotated[Number, "the number in round `num_rounds` and after it"]
    num_rounds: NumRounds

    def number(self, round_number: int) -> float:
        return _between(self.initial, self.final, _share(round_number, 1, self.num_rounds))


@schedules.register("cosine")
@dataclass(frozen=True)
class Cosine(Schedule):
    """Along half a cosine from the first round to round `num_rounds`, and then constant.

    >>> cosine = Cosine(initial=4.0, num_rounds=3)
    >>> [round(cosine.at(round_number), 3) for round_number in (1, 2, 3, 9)]
    [4.0, 2.0, 0.0, 0.0]
    """

    source: ClassVar[str] = "Loshchilov and Hutter 2017 (SGDR), arXiv:1608.03983, equation 5"

    initial: Annotated[Number, "the number in the first round"]
    num_rounds: NumRounds
    final: Annotated[Number, "the number in round `num_rounds` and after it"] = 0.0

    def number(self, round_number: int) -> float:
        return _between(self.initial, self.final, _cosine(_share(round_number, 1, self.num_rounds)))


@schedules.register("warmup_cosine")
@dataclass(frozen=True)
class WarmupCosine(Schedule):
    """Along a line up to `peak` in round `num_warmup`, then along half a cosine down to round `num_rounds`.

    >>> schedule = WarmupCosine(peak=4.0, num_warmup=3, num_rounds=5)
    >>> [round(schedule.at(round_number), 3) for round_number in (1, 2, 3, 4, 5)]
    [0.0, 2.0, 4.0, 2.0, 0.0]
    """

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
    """The share of the way from the first round to the last: 0 … 1."""
    return min(1.0, (round_number - first) / (last - first))


def _between(initial: float, final: float, share: float) -> float:
    # Gives the ends exactly, and never a number beyond them.
    return initial * (1 - share) + final * share


def _cosine(share: float) -> float:
    return (1 - math.cos(math.pi * share)) / 2
