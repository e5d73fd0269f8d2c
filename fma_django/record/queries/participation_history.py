"""The participation of clients in the rounds of models: asked, answered, late, failed, seconds, bytes sent.

A client was asked for a round when it was chosen, or joined, or sent an update that nobody had asked for. Of what it
was asked it answered in time, or late, or the round ended without it (failed), or the round is still open (pending).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import OuterRef, QuerySet, Subquery

from fma_core.metrics import merge
from fma_django.models import Client, FederatedModel, ModelUpdate, Participation
from fma_django.models.model_update import ACCEPTED, UpdateVerdict
from fma_django.models.round import ENDED

Key = tuple[int, UUID]  # a model and a client


@dataclass
class Participated:
    """One client in one model.

    reliability: of what it was asked and what is over, the share that it answered in time; None before there is any.
    clipped, rejected: its answers that were, by the rule or a stage.
    seconds: from being asked to having answered: mean, min, max, p5, p50, p95 and count; None without an answer.
    """

    federated_model: int
    client: UUID
    asked: int = 0
    answered: int = 0
    late: int = 0
    failed: int = 0
    pending: int = 0
    clipped: int = 0
    rejected: int = 0
    sent_bytes: int = 0
    last_asked_on: datetime | None = None
    last_answered_on: datetime | None = None
    durations: list[float] = field(default_factory=list, repr=False)

    @property
    def reliability(self) -> float | None:
        over = self.asked - self.pending
        return self.answered / over if over else None

    @property
    def seconds(self) -> dict[str, float] | None:
        merged = merge((1, {"seconds": seconds}) for seconds in self.durations)
        return merged.get("seconds")


def participation_of(
    clients: QuerySet[Client],
    models: QuerySet[FederatedModel],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[Participated]:
    """Participation by model and client in rounds that began in this time (UTC; `until` excluded), in two queries."""
    totals: dict[Key, Participated] = {}
    for row in _asked(clients, models, since, until):
        _count(_of(totals, row), row)
    for row in _sent(clients, models, since, until):
        _add(_of(totals, row), row)
    return [totals[key] for key in sorted(totals)]


def _of(totals: dict[Key, Participated], row: dict[str, Any]) -> Participated:
    key = (row["round__federated_model"], row["client"])
    return totals.setdefault(key, Participated(*key))


def _count(total: Participated, row: dict[str, Any]) -> None:
    total.asked += 1
    asked_on = row["joined_on"] or row["created_on"]
    total.last_asked_on = _later(total.last_asked_on, asked_on)
    if row["answered_on"] is None:
        if row["round__state"] in ENDED:
            total.failed += 1
        else:
            total.pending += 1
        return
    total.last_answered_on = _later(total.last_answered_on, row["answered_on"])
    if row["was_late"]:
        total.late += 1
    else:
        total.answered += 1
    total.durations.append(max(0.0, (row["answered_on"] - asked_on).total_seconds()))


def _add(total: Participated, row: dict[str, Any]) -> None:
    total.sent_bytes += row["size_bytes"]
    total.clipped += row["verdict"] == UpdateVerdict.CLIPPED
    total.rejected += row["verdict"] == UpdateVerdict.REJECTED
    if row["known"] is not None or row["status"] not in ACCEPTED:
        return
    began = row["round__started_on"] or row["round__opened_on"]
    total.asked += 1
    total.answered += 1
    total.last_asked_on = _later(total.last_asked_on, began)
    total.last_answered_on = _later(total.last_answered_on, row["created_on"])
    total.durations.append(max(0.0, (row["created_on"] - began).total_seconds()))


def _asked(clients: Any, models: Any, since: datetime | None, until: datetime | None) -> Iterator[Any]:
    rows = Participation.objects.filter(
        is_chosen=True, client__in=clients.order_by(), round__federated_model__in=models.order_by()
    )
    names = ("client", "round__federated_model", "round__state", "created_on", "joined_on", "answered_on")
    return _within(rows, since, until).values(*names, "was_late").order_by().iterator()


def _sent(clients: Any, models: Any, since: datetime | None, until: datetime | None) -> Iterator[Any]:
    known = Participation.objects.filter(round=OuterRef("round"), client=OuterRef("client"))
    rows = ModelUpdate.objects.filter(
        client__in=clients.order_by(), round__federated_model__in=models.order_by()
    ).annotate(known=Subquery(known.values("pk")[:1]))
    names = ("client", "round__federated_model", "round__started_on", "round__opened_on", "created_on")
    return (
        _within(rows, since, until)
        .values(*names, "status", "verdict", "size_bytes", "known")
        .order_by()
        .iterator()
    )


def _within(rows: QuerySet[Any], since: datetime | None, until: datetime | None) -> QuerySet[Any]:
    if since is not None:
        rows = rows.filter(round__opened_on__gte=since)
    return rows if until is None else rows.filter(round__opened_on__lt=until)


def _later(one: datetime | None, other: datetime) -> datetime:
    return other if one is None else max(one, other)
