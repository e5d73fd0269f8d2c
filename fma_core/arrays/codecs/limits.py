"""Limits on the weights that a client may send."""

from __future__ import annotations

from dataclasses import dataclass

from fma_core.errors import TooLarge


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one body of weights; all of them are checked before memory or disk space is used."""

    max_bytes: int = 2 * 2**30
    max_arrays: int = 100_000
    max_header_bytes: int = 16 * 2**20

    def require_few_arrays(self, num_arrays: int) -> None:
        """Raises TooLarge."""
        if num_arrays > self.max_arrays:
            raise TooLarge(
                f"the weights have {num_arrays} arrays; at most {self.max_arrays} are accepted",
                found=num_arrays,
                limit=self.max_arrays,
            )


DEFAULT_LIMITS = Limits()
