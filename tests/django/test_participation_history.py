"""How clients took part, counted."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from fma_django.models import Client, FederatedModel, Participation, Round
from fma_django.record.queries.participation_history import Participated, participation_of
from tests.records import make_client, make_model

pytestmark = pytest.mark.django_db


def add_round(
    model: FederatedModel, number: int, *, over: bool = True, opened_on: datetime | None = None
) -> Round:
    state = {"state": "cancelled", "closed_on": timezone.now()} if over else {"state": "aggregating"}
    if not over:
        state |= {"lease_token": "00000000-0000-0000-0000-000000000001", "lease_expires_at": timezone.now()}
    made = Round.objects.create(federated_model=model, number=number, **state)
    Round.objects.filter(pk=made.pk).update(opened_on=opened_on or timezone.now())
    return made


def ask(in_round: Round, client: Client, *, after_s: float | None = None, **columns: Any) -> None:
    joined_on = timezone.now()
    answered_on = None if after_s is None else joined_on + timedelta(seconds=after_s)
    Participation.objects.create(
        round=in_round, client=client, is_chosen=True, joined_on=joined_on, answered_on=answered_on, **columns
    )


def of(model: FederatedModel, **times: Any) -> Participated:
    clients, models = Client.objects.all(), FederatedModel.objects.filter(pk=model.pk)
    (found,) = participation_of(clients, models, **times)
    return found


def test_what_was_asked_is_answered_late_failed_or_pending() -> None:
    model = make_model()
    client = make_client(model).client
    for number, seconds in ((10, 4.0), (11, 8.0)):
        ask(add_round(model, number), client, after_s=seconds)
    ask(add_round(model, 12), client, after_s=60.0, was_late=True)
    ask(add_round(model, 13), client)
    ask(add_round(model, 14, over=False), client)
    Participation.objects.create(
        round=add_round(model, 15), client=client, is_chosen=False, reason="not_drawn"
    )

    found = of(model)

    assert (found.asked, found.answered, found.late, found.failed, found.pending) == (5, 2, 1, 1, 1)
    assert found.reliability == 0.5
    assert found.seconds is not None
    assert (found.seconds["mean"], found.seconds["max"], found.seconds["count"]) == (24.0, 60.0, 3)


def test_rounds_are_counted_by_when_they_began() -> None:
    model = make_model()
    client = make_client(model).client
    now = timezone.now()
    for number, days in ((10, 5), (11, 3), (12, 1)):
        ask(add_round(model, number, opened_on=now - timedelta(days=days)), client)

    assert of(model, since=now - timedelta(days=4)).asked == 2
    assert of(model, since=now - timedelta(days=4), until=now - timedelta(days=2)).asked == 1


def test_nothing_is_known_of_who_was_never_asked() -> None:
    make_client(make_model())

    assert participation_of(Client.objects.all(), FederatedModel.objects.all()) == []


def test_history_takes_two_queries() -> None:
    model = make_model()
    for number in range(10, 14):
        ask(add_round(model, number), make_client(model).client, after_s=1.0)

    with CaptureQueriesContext(connection) as captured:
        participation_of(Client.objects.all(), FederatedModel.objects.all())

    assert len(captured) == 2
