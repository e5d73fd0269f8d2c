"""A simulated client: a function that trains, and the facts that the server would know about the client."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from fma_core.aggregation.aggregators.aggregator import MAX_NUM_EXAMPLES
from fma_core.arrays.spec import Arrays
from fma_core.selection import Candidate

# The facts of a candidate that follow from rounds, and not from reports of its client.
_FROM_ROUNDS = frozenset(
    {
        "client",
        "tags",
        "organisation",
        "seconds_since_turn",
        "rounds_since_turn",
        "times_chosen",
        "times_answered",
        "loss",
        "loss_rms",
        "round_s",
        "seconds_since_seen",
    }
)
REPORTED = frozenset(each.name for each in fields(Candidate)) - _FROM_ROUNDS

Facts = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Trained:
    """The update that a client sends, and the time that it took.

    arrays: as the strategy requires them (weights or deltas, and payloads). num_examples: its weight, 1 … 2**53.
    seconds: from the request to the last byte of the answer, in virtual time.
    """

    arrays: Arrays
    num_examples: int = 1
    metrics: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        # The server would see JSON, which has no numpy numbers.
        object.__setattr__(self, "num_examples", operator.index(self.num_examples))
        object.__setattr__(self, "metrics", _plain(self.metrics))
        object.__setattr__(self, "seconds", float(self.seconds))
        if not 1 <= self.num_examples <= MAX_NUM_EXAMPLES:
            raise ValueError(f"num_examples must be from 1 to 2**53, found {self.num_examples}")
        if not 0 <= self.seconds < float("inf"):
            raise ValueError(f"seconds must be 0 or more, and finite, found {self.seconds}")


Train = Callable[[Arrays | None, Mapping[str, Any], int], Trained | None]


@dataclass(frozen=True, eq=False)
class SimulatedClient:
    """A client of a simulation.

    train: called with the model's weights (read-only; None while there are none), the client's configuration and the
        number of the round. It returns None for a dropout, of which the server learns nothing.
    facts: the facts that a device reports for filters and selectors: num_examples, ping_ms, download_mbps, upload_mbps,
        free_memory_bytes, battery, is_charging, is_unmetered, version; or a function that gives them for a round.
    """

    id: str
    train: Train
    tags: Collection[str] = ()
    organisation: str | None = None
    facts: Facts | Callable[[int], Facts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id:
            raise ValueError(f"the id of a client must be a string, found {self.id!r:.80}")
        if isinstance(self.tags, str):
            raise ValueError(f"tags must be several strings, found {self.tags!r:.80}")
        if not callable(self.facts):
            _require_reported(self.facts, self.id)

    def facts_in(self, round_number: int) -> Facts:
        if not callable(self.facts):
            return self.facts
        facts = self.facts(round_number)
        _require_reported(facts, self.id)
        return facts


def _require_reported(facts: Facts, client: str) -> None:
    if unknown := sorted(set(facts) - REPORTED):
        raise ValueError(
            f"facts of client {client!r}: {', '.join(unknown)} are unknown; known are {', '.join(sorted(REPORTED))}"
        )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    return value
