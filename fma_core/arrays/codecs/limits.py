"""How much of somebody else's bytes is read before they are refused."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one body of weights; all of them are checked before the memory or the disk is spent."""

    max_bytes: int = 2 * 2**30
    max_arrays: int = 100_000
    max_header_bytes: int = 16 * 2**20


DEFAULT_LIMITS = Limits()
