"""The inputs of a selection: a client that could be asked, and a round that is over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Candidate:
    """A client of the model, with the facts that filters and selectors look at; None: not known.

    seconds_since_turn, rounds_since_turn: since it was last chosen; None when it never was.
    num_examples, loss, loss_rms: as reported with the newest of its updates that an aggregate used. loss: the mean loss
    of its examples; loss_rms: the root of the mean of the squared losses.
    times_rejected: the number of its updates that the rule or a stage rejected.
    round_s: the time from the request to the answer, in the last round that it answered.
    battery: the share that is left, 0 to 1. version: the version of its client library.
    """

    client: str
    tags: frozenset[str] = frozenset()
    organisation: str | None = None
    num_examples: int | None = None
    seconds_since_turn: float | None = None
    rounds_since_turn: int | None = None
    times_chosen: int = 0
    times_answered: int = 0
    times_rejected: int = 0
    loss: float | None = None
    loss_rms: float | None = None
    round_s: float | None = None
    ping_ms: float | None = None
    download_mbps: float | None = None
    upload_mbps: float | None = None
    free_memory_bytes: int | None = None
    battery: float | None = None
    is_charging: bool | None = None
    is_unmetered: bool | None = None
    version: str | None = None
    seconds_since_seen: float | None = None


@dataclass(frozen=True, slots=True)
class PastRound:
    """A round of the model that is over: the clients chosen, the clients that answered, its duration and metrics.

    rejected: the clients of those that answered whose updates the rule or a stage rejected.
    metrics: means over the updates that were used, weighted by examples, such as {"loss": 0.31}.
    """

    number: int
    chosen: tuple[str, ...]
    answered: tuple[str, ...] = ()
    seconds: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    rejected: tuple[str, ...] = ()
