"""Staleness functions: the weight of an update that was trained from an aggregate that is no longer the newest.

Source: Xie et al. 2019, arXiv:1903.03934, section 5.2 (constant, polynomial, hinge); FedBuff takes polynomial with
a = 0.5.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

from fma_core.parameters import Bounds, CheckedPart
from fma_core.registry import Registry

# The smallest discount. One that underflowed to 0 would leave a round of old updates without any weight.
MIN_DISCOUNT = 2.0**-500


class Staleness(CheckedPart, ABC):
    """A discount by age; its subclasses are frozen dataclasses whose fields are its parameters."""

    source: ClassVar[str] = "Xie et al. 2019, arXiv:1903.03934, section 5.2"

    @abstractmethod
    def discount(self, staleness: int) -> float:
        """The factor of an update, in (0, 1]; staleness: how many aggregates were published since its base."""


stalenesses: Registry[Staleness] = Registry("staleness", "fma.stalenesses")


@stalenesses.register("constant")
@dataclass(frozen=True)
class Constant(Staleness):
    """1 at any staleness: every update counts in full.

    >>> Constant().discount(staleness=9)
    1.0
    """

    def discount(self, staleness: int) -> float:
        return 1.0


@stalenesses.register("polynomial")
@dataclass(frozen=True)
class Polynomial(Staleness):
    """(1 + staleness)^-a.

    >>> Polynomial(a=0.5).discount(staleness=3)
    0.5
    """

    a: Annotated[float, Bounds(ge=0, le=64), "how fast the discount falls"] = 0.5

    def discount(self, staleness: int) -> float:
        # The last bit of a power depends on the platform; a square root is exact everywhere, and the usual case.
        discount = 1 / (1 + staleness) ** 0.5 if self.a == 0.5 else (1 + staleness) ** -self.a
        return max(MIN_DISCOUNT, float(discount))


@stalenesses.register("hinge")
@dataclass(frozen=True)
class Hinge(Staleness):
    """1 up to a staleness of b, and 1 / (a (staleness − b) + 1) beyond.

    >>> Hinge(a=1.0, b=2).discount(staleness=2), Hinge(a=1.0, b=2).discount(staleness=5)
    (1.0, 0.25)
    """

    a: Annotated[float, Bounds(gt=0), "how fast the discount falls"] = 10.0
    b: Annotated[int, Bounds(ge=0), "the largest staleness that counts in full"] = 4

    def discount(self, staleness: int) -> float:
        if staleness <= self.b:
            return 1.0
        return max(MIN_DISCOUNT, 1 / (self.a * (staleness - self.b) + 1))
