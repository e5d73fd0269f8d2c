"""Limits on the weights that a client may send."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one body of weights; all of them are checked before memory or disk space is used."""

    max_bytes: int = 2 * 2**30
    max_arrays: int = 100_000
    max_header_bytes: int = 16 * 2**20


DEFAULT_LIMITS = Limits()
