"""The front page of the admin: what runs, what waits, what went wrong.

`UNFOLD["DASHBOARD_CALLBACK"] = "fma_django.admin.dashboard.add_counts"`
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Count, Q
from django.http import HttpRequest
from django.utils import timezone

from fma_django.admin.links import list_url
from fma_django.admin.workers import alive_workers
from fma_django.models import FederatedModel, Round, Worker
from fma_django.models.round import RoundState

DAY = timedelta(hours=24)


@dataclass(frozen=True)
class Card:
    """One number. alert: it asks for somebody's attention, and `note` says why in words."""

    title: str
    count: int
    note: str
    url: str
    alert: bool = False


def add_counts(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """The index page's context with the cards that the user may see the rows of."""
    cards: list[Card] = []
    for model, make in ((FederatedModel, _models), (Round, _rounds), (Worker, _workers)):
        name = model._meta.model_name
        if any(request.user.has_perm(f"fma_django.{verb}_{name}") for verb in ("view", "change")):
            cards += make()
    return {**context, "fma_cards": cards}


def _models() -> list[Card]:
    counts = FederatedModel.objects.aggregate(
        active=Count("pk", filter=Q(allow_aggregation=True)),
        paused=Count("pk", filter=Q(allow_aggregation=False, ended_on__isnull=True)),
    )
    return [
        Card(
            "Active models",
            counts["active"],
            "rounds close by themselves",
            list_url(FederatedModel, state="active"),
        ),
        Card("Paused models", counts["paused"], "updates wait", list_url(FederatedModel, state="paused")),
    ]


def _rounds() -> list[Card]:
    since = timezone.now() - DAY
    counts = Round.objects.aggregate(
        collecting=Count("pk", filter=Q(state=RoundState.COLLECTING)),
        answered=Count("pk", filter=Q(state=RoundState.COLLECTING, num_updates__gt=0)),
        aggregating=Count("pk", filter=Q(state=RoundState.AGGREGATING)),
        failed=Count("pk", filter=Q(state=RoundState.FAILED, closed_on__gte=since)),
    )
    return [
        Card(
            "Open rounds",
            counts["collecting"],
            f"{counts['answered']} with updates",
            list_url(Round, state__exact=RoundState.COLLECTING.value),
        ),
        Card(
            "Rounds being aggregated",
            counts["aggregating"],
            "a worker is on it" if counts["aggregating"] else "none is due",
            list_url(Round, state__exact=RoundState.AGGREGATING.value),
        ),
        Card(
            "Failed rounds, last 24 h",
            counts["failed"],
            "look at why" if counts["failed"] else "all well",
            list_url(Round, state__exact=RoundState.FAILED.value, closed_on__gte=since.isoformat()),
            alert=counts["failed"] > 0,
        ),
    ]


def _workers() -> list[Card]:
    count = alive_workers().count()
    note = "seen in the last seconds" if count else "no worker is running: rounds wait"
    return [Card("Workers alive", count, note, list_url(Worker, alive="yes"), alert=count == 0)]
