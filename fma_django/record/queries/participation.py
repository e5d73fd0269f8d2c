"""The participation of clients in the record: the inputs of a selection.

A client was asked for a round when it was chosen for it, or, where everyone may answer, when it joined it or sent an
update to it. It answered when an update of it counted in that round. Rounds of models whose clients never join leave
no participations, so that updates without one count as asked and answered.

Selections hear the numbers that clients report only from updates that an aggregate used: not from those that the rule
rejected, nor from those that no rule has judged yet. How long a client took is measured here, and holds for any answer.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from datetime import datetime
from typing import Any

from django.db.models import Count, Exists, F, Max, OuterRef, Q, QuerySet, Subquery
from django.db.models.fields.json import KeyTransform

from fma_core.selection import Candidate, PastRound
from fma_django.models import Client, ClientTelemetry, FederatedModel, ModelUpdate, Participation, Round
from fma_django.models.model_update import ACCEPTED, UpdateStatus, UpdateVerdict
from fma_django.models.round import ENDED

IN_TIME = Q(answered_on__isnull=False, was_late=False)
REJECTED = Q(verdict=UpdateVerdict.REJECTED)
# Rounds of before there were verdicts have none.
USED = Q(status=UpdateStatus.COMPLETE) & (Q(verdict__isnull=True) | ~REJECTED)
# The columns of a client's newest report, by the names of a candidate's facts.
REPORTED = {
    "ping_ms": "ping_ms",
    "download_mbps": "download_mbps",
    "upload_mbps": "upload_mbps",
    "free_memory_bytes": "free_memory_bytes",
    "battery": "battery",
    "is_charging": "is_charging",
    "is_unmetered": "is_unmetered",
    "version": "client_version",
}
Facts = dict[str, Any]


def candidates_of(
    federated_model: FederatedModel, now: datetime, *, only: Client | None = None
) -> list[Candidate]:
    """Every active client of the model, or this one, with what is known of it, in a constant number of queries."""
    clients = (
        _of(only, Client.objects.filter(federated_models=federated_model, is_active=True), "pk")
        .select_related("organisation", "latest_telemetry")
        .prefetch_related("tags")
        .only(
            "last_seen_on", "organisation__name", *(f"latest_telemetry__{name}" for name in REPORTED.values())
        )
        .order_by("pk")
    )
    asked = _by_client(_of(only, _asked(federated_model)))
    answered = _by_client(_of(only, _answered(federated_model)))
    newest = _by_client(_of(only, _times_of(_newest(federated_model, Q(status__in=ACCEPTED)))))
    used = _by_client(_of(only, _reports_of(_newest(federated_model, USED))))
    rejected = _by_client(_of(only, _rejected(federated_model)))
    number = federated_model.rounds.aggregate(newest=Max("number"))["newest"] or 0
    return [
        Candidate(
            client=str(client.pk),
            tags=frozenset(tag.name for tag in client.tags.all()),
            organisation=None if client.organisation is None else client.organisation.name,
            seconds_since_seen=_seconds(client.last_seen_on, now),
            **_reported(client.latest_telemetry),
            **_turns(asked.get(client.pk, {}), answered.get(client.pk, {}), number, now),
            **_last_answer(newest.get(client.pk, {})),
            **_last_used(used.get(client.pk, {})),
            times_rejected=rejected.get(client.pk, {}).get("rejected", 0),
        )
        for client in clients
    ]


def past_rounds(federated_model: FederatedModel, limit: int | None = None) -> list[PastRound]:
    """The model's rounds that are over, the oldest first; of many, the `limit` newest. In three queries."""
    ended = Round.objects.filter(federated_model=federated_model, state__in=ENDED).order_by("-number")
    rounds = list(
        ended.only("number", "opened_on", "started_on", "closed_on", "num_asked", "metrics")[:limit]
    )
    if not rounds:
        return []
    since = {"round__federated_model": federated_model, "round__number__gte": rounds[-1].number}
    # By round and client, whether it answered in time.
    asked: dict[int, dict[str, bool]] = defaultdict(dict)
    chosen = Participation.objects.filter(**since, is_chosen=True).order_by().annotate(in_time=IN_TIME)
    for number, client, in_time in chosen.values_list("round__number", "client_id", "in_time"):
        asked[number][str(client)] = in_time
    rejected: dict[int, set[str]] = defaultdict(set)
    heard = ModelUpdate.objects.filter(
        Q(round__num_asked=None, status__in=ACCEPTED) | REJECTED, **since
    ).order_by()
    for number, client, num_asked, verdict in heard.values_list(
        "round__number", "client_id", "round__num_asked", "verdict"
    ):
        if num_asked is None:
            asked[number][str(client)] = True
        if verdict == UpdateVerdict.REJECTED:
            rejected[number].add(str(client))
    return [_past(each, asked[each.number], rejected[each.number]) for each in reversed(rounds)]


def _of(only: Client | None, rows: QuerySet[Any, Any], column: str = "client_id") -> QuerySet[Any, Any]:
    return rows if only is None else rows.filter(**{column: only.pk})


def _asked(federated_model: FederatedModel) -> QuerySet[Any, Any]:
    return (
        Participation.objects.filter(round__federated_model=federated_model, is_chosen=True)
        .order_by()
        .values("client_id")
        .annotate(
            asked=Count("pk"),
            answered=Count("pk", filter=IN_TIME),
            last_number=Max("round__number"),
            last_on=Max("created_on"),
        )
    )


def _answered(federated_model: FederatedModel) -> QuerySet[Any, Any]:
    """The answers of clients in rounds that kept no list of whom they asked."""
    known = Participation.objects.filter(round=OuterRef("round"), client=OuterRef("client"))
    return (
        ModelUpdate.objects.filter(~Exists(known), federated_model=federated_model, status__in=ACCEPTED)
        .order_by()
        .values("client_id")
        .annotate(answered=Count("pk"), last_number=Max("round__number"), last_on=Max("created_on"))
    )


def _newest(federated_model: FederatedModel, which: Q) -> QuerySet[ModelUpdate]:
    """The newest update of each client of those that fit."""
    fitting = ModelUpdate.objects.filter(which, federated_model=federated_model).order_by()
    newest = fitting.values("client_id").annotate(newest=Max("pk")).values("newest")
    return ModelUpdate.objects.filter(pk__in=Subquery(newest)).order_by()


def _times_of(updates: QuerySet[ModelUpdate]) -> QuerySet[Any, Any]:
    joined = Participation.objects.filter(round=OuterRef("round"), client=OuterRef("client"))
    return updates.annotate(
        joined_on=Subquery(joined.values("joined_on")[:1]),
        began_on=F("round__started_on"),
        opened_on=F("round__opened_on"),
    ).values("client_id", "joined_on", "began_on", "opened_on", "created_on")


def _reports_of(updates: QuerySet[ModelUpdate]) -> QuerySet[Any, Any]:
    return updates.annotate(
        loss=KeyTransform("loss", "metrics"), loss_rms=KeyTransform("loss_rms", "metrics")
    ).values("client_id", "num_examples", "loss", "loss_rms")


def _rejected(federated_model: FederatedModel) -> QuerySet[Any, Any]:
    rejected = ModelUpdate.objects.filter(REJECTED, federated_model=federated_model).order_by()
    return rejected.values("client_id").annotate(rejected=Count("pk"))


def _reported(newest: ClientTelemetry | None) -> Facts:
    if newest is None:
        return {}
    facts = {fact: getattr(newest, column) for fact, column in REPORTED.items()}
    return {**facts, "version": newest.client_version or None}


def _by_client(rows: Iterable[Facts]) -> dict[Any, Facts]:
    return {row["client_id"]: row for row in rows}


def _turns(asked: Facts, answered: Facts, number: int, now: datetime) -> Facts:
    numbers = [facts["last_number"] for facts in (asked, answered) if facts]
    moments = [facts["last_on"] for facts in (asked, answered) if facts]
    unasked = answered.get("answered", 0)
    return {
        "times_chosen": asked.get("asked", 0) + unasked,
        "times_answered": asked.get("answered", 0) + unasked,
        "rounds_since_turn": number - max(numbers) if numbers else None,
        "seconds_since_turn": _seconds(max(moments), now) if moments else None,
    }


def _last_answer(update: Facts) -> Facts:
    if not update:
        return {}
    began = update["joined_on"] or update["began_on"] or update["opened_on"]
    return {"round_s": _seconds(began, update["created_on"])}


def _last_used(update: Facts) -> Facts:
    if not update:
        return {}
    return {
        "num_examples": update["num_examples"],
        "loss": _number(update["loss"]),
        "loss_rms": _number(update["loss_rms"]),
    }


def _past(round_: Round, asked: Mapping[str, bool], rejected: Set[str]) -> PastRound:
    answered = {client for client, in_time in asked.items() if in_time}
    return PastRound(
        number=round_.number,
        chosen=tuple(sorted(asked)),
        answered=tuple(sorted(answered)),
        rejected=tuple(sorted(answered & rejected)),
        seconds=_seconds(round_.started_on or round_.opened_on, round_.closed_on),
        metrics={name: statistics["mean"] for name, statistics in round_.metrics.items()},
    )


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    """None while one of them is unknown; never negative: clocks are set, and late updates count for later rounds."""
    return None if start is None or end is None else max(0.0, (end - start).total_seconds())


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
