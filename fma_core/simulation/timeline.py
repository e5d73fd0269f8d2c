"""The events of a simulation that are still to come, in the order of its virtual clock."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TypeAlias

from fma_core.simulation.files import Update


@dataclass(frozen=True, slots=True)
class Deadline:
    """The deadline of a round; one for each time that it is opened."""

    round_number: int
    num_reopenings: int


@dataclass(frozen=True, slots=True)
class Wake:
    """A filter that refused clients will let some of them pass now."""

    round_number: int


Event: TypeAlias = Update | Deadline | Wake
# An update that arrives at the very moment of a deadline is in time.
_ORDER = {Update: 0, Wake: 1, Deadline: 2}


class Timeline:
    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int, int, Event]] = []
        self._num_added = 0

    def add(self, when_s: float, event: Event, *, tie: int = 0) -> None:
        self._num_added += 1
        heapq.heappush(self._heap, (when_s, _ORDER[type(event)], tie, self._num_added, event))

    def pop(self) -> tuple[float, Event] | None:
        """When the next thing happens, and what; None when nothing ever will."""
        if not self._heap:
            return None
        when_s, *_, event = heapq.heappop(self._heap)
        return when_s, event
