"""The facts that the server would know about its clients from earlier rounds: the inputs of a selection."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fma_core.engine import UpdateUse
from fma_core.selection import Candidate, PastRound
from fma_core.simulation.client import SimulatedClient
from fma_core.simulation.files import Update


@dataclass
class _Turns:
    times_chosen: int = 0
    times_answered: int = 0
    number: int = 0
    asked_s: float = 0.0
    times_rejected: int = 0
    newest: Update | None = None
    used: Update | None = None


class History:
    def __init__(self, clients: Sequence[SimulatedClient]) -> None:
        self._clients = clients
        self._turns = {client.id: _Turns() for client in clients}
        self.past: list[PastRound] = []

    def asked(self, clients: Collection[str], *, round_number: int, now_s: float) -> None:
        for client in clients:
            turns = self._turns[client]
            turns.times_chosen += 1
            turns.number = round_number
            turns.asked_s = now_s

    def answered(self, update: Update, *, in_time: bool) -> None:
        """Note that an update of a client was accepted."""
        turns = self._turns[update.client]
        turns.times_answered += in_time
        turns.newest = update

    def judged(self, update: Update, use: UpdateUse) -> None:
        """Note the use that an aggregate made of an update: only of those used is heard what their clients say."""
        turns = self._turns[update.client]
        if use.counts:
            turns.used = update
        else:
            turns.times_rejected += 1

    def candidates(self, round_number: int, now_s: float) -> list[Candidate]:
        return [
            Candidate(
                client=client.id,
                tags=frozenset(client.tags),
                organisation=client.organisation,
                seconds_since_seen=0.0,
                **{**client.facts_in(round_number), **self._facts(client.id, round_number, now_s)},
            )
            for client in self._clients
        ]

    def _facts(self, client: str, round_number: int, now_s: float) -> dict[str, Any]:
        turns = self._turns[client]
        facts: dict[str, Any] = {
            "times_chosen": turns.times_chosen,
            "times_answered": turns.times_answered,
            "times_rejected": turns.times_rejected,
        }
        if turns.times_chosen:
            facts["rounds_since_turn"] = round_number - turns.number
            facts["seconds_since_turn"] = now_s - turns.asked_s
        if turns.used is not None:
            facts["num_examples"] = turns.used.num_examples
            facts["loss"] = _number(turns.used.metrics, "loss")
            facts["loss_rms"] = _number(turns.used.metrics, "loss_rms")
        if turns.newest is not None:
            facts["round_s"] = turns.newest.seconds
        return facts


def _number(metrics: Mapping[str, Any], name: str) -> float | None:
    value = metrics.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
