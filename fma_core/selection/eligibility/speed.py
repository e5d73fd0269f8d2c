"""The filter by the speed of the connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fma_core.parameters import Bounds
from fma_core.selection.candidate import Candidate
from fma_core.selection.eligibility.filter import Filter, IfUnknown, check_fact, filters
from fma_core.selection.refusal import Refusal


@filters.register("speed")
@dataclass(frozen=True)
class Speed(Filter):
    """Clients whose measured round trip, download and upload are within the given bounds.

    >>> Speed(max_ping_ms=50).refuse(Candidate("phone", ping_ms=80.0)).detail
    "its round trip time must be at most 50 ms, the client's is 80"
    """

    source: ClassVar[str] = "fma"

    max_ping_ms: Annotated[float | None, Bounds(gt=0), "the longest round trip; null: any"] = None
    min_download_mbps: Annotated[float | None, Bounds(gt=0), "the least download, in Mbit/s; null: any"] = (
        None
    )
    min_upload_mbps: Annotated[float | None, Bounds(gt=0), "the least upload, in Mbit/s; null: any"] = None
    if_unknown: IfUnknown = "refuse"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_ping_ms is self.min_download_mbps is self.min_upload_mbps is None:
            raise ValueError("max_ping_ms, min_download_mbps or min_upload_mbps must be given")

    def refuse(self, candidate: Candidate) -> Refusal | None:
        return (
            self._check(candidate.ping_ms, "round trip time", "ms", at_most=self.max_ping_ms)
            or self._check(
                candidate.download_mbps, "download speed", "Mbit/s", at_least=self.min_download_mbps
            )
            or self._check(candidate.upload_mbps, "upload speed", "Mbit/s", at_least=self.min_upload_mbps)
        )

    def _check(
        self,
        measured: float | None,
        fact: str,
        unit: str,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> Refusal | None:
        bound = at_least if at_least is not None else at_most
        if bound is None:
            return None

        def refuse(value: float) -> Refusal | None:
            if value >= bound if at_least is not None else value <= bound:
                return None
            words = "at least" if at_least is not None else "at most"
            return Refusal(
                "too_slow", f"its {fact} must be {words} {bound:g} {unit}, the client's is {value:g}"
            )

        return check_fact(measured, fact, self.if_unknown, refuse)
