"""Many clients that enrol at once, on whatever database the run uses: no use, no place counts twice."""

from functools import partial
from typing import Any

import pytest
from pytest_django import Settings

from fma_django.clients.invitations import create_invitation
from fma_django.clients.registration import (
    Registration,
    approve_client,
    create_client,
    register_client,
    revoke_client,
)
from fma_django.errors import InvalidInvitation
from fma_django.models import Client, Invitation
from tests.api.conftest import storage  # noqa: F401  # autouse
from tests.concurrency.test_races import all_at_once
from tests.records import make_model

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.untraced]


def kinds(results: list[Any]) -> set[type]:
    return {type(result) for result in results}


def test_two_hundred_that_use_an_invitation_at_once_become_as_many_clients_as_it_has_uses(
    settings: Settings,
) -> None:
    settings.FMA_REGISTRATION = "closed"
    model = make_model()
    _, token = create_invitation(by=None, models=[model.pk], uses=10, tags=["gpu"])

    results = in_turns(partial(register_client, model, invitation=token), 200)

    assert kinds(results) == {Registration, InvalidInvitation}
    assert Client.objects.count() == model.clients.count() == model.consents.count() == 10
    assert Client.objects.filter(tags__name="gpu").count() == 10
    assert Invitation.objects.get().uses_left == 0


def test_one_client_that_uses_an_invitation_many_times_at_once_uses_it_once(settings: Settings) -> None:
    settings.FMA_REGISTRATION = "closed"
    model = make_model()
    _, token = create_invitation(by=None, models=[model.pk], uses=10)
    key = "4d8a2f1e-0000-4000-8000-123456789abc"

    results = all_at_once(*[partial(register_client, model, invitation=token, idempotency_key=key)] * 8)

    assert len({result.credential for result in results}) == 1
    assert Client.objects.count() == 1
    assert Invitation.objects.get().uses_left == 9


def test_a_known_client_that_comes_many_times_at_once_uses_an_invitation_once(settings: Settings) -> None:
    settings.FMA_REGISTRATION = "closed"
    model = make_model()
    known, credential = create_client()
    _, token = create_invitation(by=None, models=[model.pk], uses=10)

    results = in_turns(partial(register_client, model, credential=str(credential), invitation=token), 12)

    assert {result.client.pk for result in results} == {known.pk}
    assert Invitation.objects.get().uses_left == 9


def test_of_an_approval_and_a_refusal_at_once_the_client_is_left_in_one_state(settings: Settings) -> None:
    settings.FMA_REGISTRATION = "approval"
    client = register_client(make_model()).client

    results = all_at_once(*[partial(approve_client, client), partial(revoke_client, client)] * 3)

    assert results == [None] * 6
    client.refresh_from_db()
    assert (client.is_active, client.awaits_approval) == (False, False)


def in_turns(call: Any, count: int) -> list[Any]:
    """Call 100 at once, again and again: the PostgreSQL of the tests takes no 200 connections."""
    return [result for _ in range(max(count // 100, 1)) for result in all_at_once(*[call] * min(count, 100))]
