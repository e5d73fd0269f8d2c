"""Retries: which answers to retry, and the pauses between attempts."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from fma_connect.exceptions import InvalidArgument

__all__ = ["RETRYABLE_STATUSES", "RetryPolicy", "retry_after_s"]

RETRYABLE_STATUSES = frozenset({429, 502, 503, 504, 507})


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with full jitter: before attempt n + 1 wait a random time in [0, min(max, first * 2^n)].

    first_delay_s, max_delay_s: in seconds. max_attempts: None leaves it to the time limit of the call.
    Source: M. Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015 ("full jitter").
    """

    first_delay_s: float = 0.5
    max_delay_s: float = 30.0
    max_attempts: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.first_delay_s <= self.max_delay_s:
            raise InvalidArgument(
                f"0 < first_delay_s <= max_delay_s must hold; got {self.first_delay_s} and {self.max_delay_s}"
            )
        if self.max_attempts is not None and self.max_attempts < 1:
            raise InvalidArgument(f"max_attempts must be at least 1; got {self.max_attempts}")

    def delay_s(self, failures: int, rng: random.Random) -> float:
        """The seconds to wait after the given number of failures in a row (1 for the first)."""
        # 2**1024 overflows a float; thirty doublings exceed any sensible limit.
        ceiling = min(self.max_delay_s, self.first_delay_s * 2.0 ** min(failures - 1, 30))
        return rng.uniform(0.0, ceiling)


def retry_after_s(value: str | None, *, now: datetime | None = None) -> float | None:
    """The seconds of a Retry-After header, in either of its two forms; None when it is absent or invalid."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())
