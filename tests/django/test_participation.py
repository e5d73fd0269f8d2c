"""The facts that the record gives a selection: about each client, and about the rounds that are over."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from fma_core.selection import Candidate
from fma_django.clients.registration import revoke_client
from fma_django.clients.reports import receive_telemetry
from fma_django.models import Client, FederatedModel, ModelUpdate, Organisation, Participation, Round, Tag
from fma_django.models.model_update import UpdateStatus, UpdateVerdict
from fma_django.record.queries.participation import candidates_of, past_rounds
from fma_django.record.weights import JsonBody
from fma_django.updates.intake import UpdateFacts
from tests.records import aggregate_now, make_client, make_model, send_body, weights

pytestmark = pytest.mark.django_db


@pytest.fixture
def model() -> FederatedModel:
    return make_model(initial_model=weights(), requirement="require_x_updates", requirement_args=[1])


def ask(
    model: FederatedModel, client: Client, *, chosen: bool = True, seconds_ago: float = 0.0, **columns: Any
) -> Participation:
    """Write down that the client was looked at for the open round."""
    current = model.rounds.get(state="collecting")
    reason = "" if chosen else "not_drawn"
    row = Participation.objects.create(
        round=current, client=client, is_chosen=chosen, reason=reason, **columns
    )
    Participation.objects.filter(pk=row.pk).update(created_on=timezone.now() - timedelta(seconds=seconds_ago))
    Round.objects.filter(pk=current.pk).update(
        num_asked=current.participations.filter(is_chosen=True).count()
    )
    return row


def send(model: FederatedModel, client: Client, num_examples: int = 1, **metrics: Any) -> ModelUpdate:
    current = FederatedModel.objects.get(pk=model.pk)
    return send_body(
        current, client, JsonBody(weights()), UpdateFacts(num_examples=num_examples, metrics=metrics)
    )


def candidate(model: FederatedModel, client: Client) -> Candidate:
    (found,) = [row for row in candidates_of(model, timezone.now()) if row.client == str(client.pk)]
    return found


def test_new_client_is_a_candidate_of_whom_little_is_known(model: FederatedModel) -> None:
    client = make_client(model).client
    client.refresh_from_db()
    assert client.last_seen_on is not None  # registering is a sign of life

    assert candidates_of(model, client.last_seen_on) == [Candidate(str(client.pk), seconds_since_seen=0.0)]


def test_clients_of_other_models_and_revoked_ones_are_no_candidates(model: FederatedModel) -> None:
    make_client(make_model())
    revoke_client(make_client(model).client)

    assert candidates_of(model, timezone.now()) == []


def test_candidate_has_its_tags_and_its_organisation(model: FederatedModel) -> None:
    client = make_client(model).client
    client.tags.set([Tag.objects.create(name="gpu"), Tag.objects.create(name="site:north")])
    Client.objects.update(organisation=Organisation.objects.create(name="North"))

    found = candidate(model, client)

    assert (found.tags, found.organisation) == (frozenset({"gpu", "site:north"}), "North")


def test_candidate_has_what_its_newest_update_said(model: FederatedModel) -> None:
    client = make_client(model).client
    send(model, client, 10, loss=0.5)
    aggregate_now(model)
    send(model, client, 30, loss=0.25, loss_rms=0.75)
    aggregate_now(model)

    found = candidate(model, client)

    assert (found.num_examples, found.loss, found.loss_rms) == (30, 0.25, 0.75)


@pytest.mark.parametrize(
    ("status", "verdict", "heard"),
    [
        (UpdateStatus.COMPLETE, UpdateVerdict.USED, True),
        (UpdateStatus.COMPLETE, UpdateVerdict.CLIPPED, True),
        (UpdateStatus.COMPLETE, None, True),  # of before there were verdicts
        (UpdateStatus.COMPLETE, UpdateVerdict.REJECTED, False),
        (UpdateStatus.PENDING, None, False),
        (UpdateStatus.RUNNING, None, False),
        (UpdateStatus.FAILED, None, False),
        (UpdateStatus.INVALID, None, False),
    ],
)
def test_candidate_is_heard_only_with_updates_that_were_used(
    model: FederatedModel, status: UpdateStatus, verdict: UpdateVerdict | None, heard: bool
) -> None:
    client = make_client(model).client
    send(model, client, 10, loss=0.5)
    aggregate_now(model)
    update = send(model, client, 30, loss=900.0, loss_rms=900.0)
    ModelUpdate.objects.filter(pk=update.pk).update(status=status, verdict=verdict)

    found = candidate(model, client)

    assert (found.num_examples, found.loss, found.loss_rms) == ((30, 900, 900) if heard else (10, 0.5, None))
    assert found.times_rejected == (verdict == UpdateVerdict.REJECTED)
    assert found.round_s is not None


def test_client_that_was_never_used_is_not_heard(model: FederatedModel) -> None:
    client = make_client(model).client
    send(model, client, 10, loss=0.5)
    aggregate_now(model)
    ModelUpdate.objects.update(verdict=UpdateVerdict.REJECTED)

    found = candidate(model, client)

    assert (found.num_examples, found.loss, found.times_rejected, found.times_answered) == (None, None, 1, 1)


@pytest.mark.parametrize("loss", ["low", None, True, [1], {"mean": 1}])
def test_loss_that_is_no_number_is_not_known(model: FederatedModel, loss: Any) -> None:
    client = make_client(model).client
    send(model, client, loss=loss)
    aggregate_now(model)

    assert candidate(model, client).loss is None


def test_time_of_a_round_counts_from_when_the_client_joined(model: FederatedModel) -> None:
    client = make_client(model).client
    now = timezone.now()
    Round.objects.update(started_on=now - timedelta(seconds=100))
    send(model, client)
    assert candidate(model, client).round_s == pytest.approx(100, abs=5)

    ask(model, client, joined_on=now - timedelta(seconds=40))

    assert candidate(model, client).round_s == pytest.approx(40, abs=5)


def test_turns_are_counted_since_the_client_was_last_chosen(model: FederatedModel) -> None:
    often, once, never = (make_client(model).client for _ in range(3))
    ask(model, often, seconds_ago=60, answered_on=timezone.now())
    ask(model, once, seconds_ago=60, answered_on=timezone.now(), was_late=True)
    send(model, often)
    aggregate_now(model)
    ask(model, often, seconds_ago=30)
    ask(model, never, chosen=False)
    send(model, often)
    aggregate_now(model)

    found = [candidate(model, client) for client in (often, once, never)]

    assert [(row.times_chosen, row.times_answered) for row in found] == [(2, 2), (1, 0), (0, 0)]
    assert [row.rounds_since_turn for row in found] == [1, 2, None]
    assert found[0].seconds_since_turn == pytest.approx(30, abs=5)
    assert found[2].seconds_since_turn is None


def test_updates_that_nobody_was_asked_for_count_as_turns(model: FederatedModel) -> None:
    client = make_client(model).client
    send(model, client)
    aggregate_now(model)

    found = candidate(model, client)

    assert (found.times_chosen, found.times_answered, found.rounds_since_turn) == (1, 1, 1)


def test_past_rounds_say_who_was_chosen_and_who_answered(model: FederatedModel) -> None:
    there, gone, unasked = sorted((make_client(model).client for _ in range(3)), key=lambda client: client.pk)
    ask(model, there, answered_on=timezone.now())
    ask(model, gone)
    ask(model, unasked, chosen=False)
    send(model, there)
    aggregate_now(model)
    Round.objects.filter(number=1).update(metrics={"loss": {"mean": 0.5, "min": 0.1}})
    send(model, unasked)
    aggregate_now(model)

    first, second = past_rounds(model)

    assert (first.number, first.chosen, first.answered) == (
        1,
        (str(there.pk), str(gone.pk)),
        (str(there.pk),),
    )
    assert first.metrics == {"loss": 0.5}
    assert first.seconds is not None
    assert second.chosen == second.answered == (str(unasked.pk),)
    assert [row.number for row in past_rounds(model, 1)] == [2]


@pytest.mark.parametrize("is_chosen", [True, False])
def test_past_rounds_say_whose_updates_were_rejected(model: FederatedModel, is_chosen: bool) -> None:
    used, rejected = sorted((make_client(model).client for _ in range(2)), key=lambda client: client.pk)
    for client in (used, rejected):
        if is_chosen:
            ask(model, client, answered_on=timezone.now())
        send(model, client)
    aggregate_now(model)
    ModelUpdate.objects.filter(client=rejected).update(verdict=UpdateVerdict.REJECTED)

    [past] = past_rounds(model)

    assert past.answered == (str(used.pk), str(rejected.pk))
    assert past.rejected == (str(rejected.pk),)


def test_open_rounds_are_not_past(model: FederatedModel) -> None:
    ask(model, make_client(model).client)

    assert past_rounds(model) == []


def test_facts_take_as_many_queries_for_many_clients_as_for_two(model: FederatedModel) -> None:
    def cost() -> tuple[int, int]:
        with CaptureQueriesContext(connection) as candidates:
            candidates_of(model, timezone.now())
        with CaptureQueriesContext(connection) as past:
            past_rounds(model, 100)
        return len(candidates), len(past)

    def grow(number: int) -> None:
        for index in range(number):
            client = make_client(model).client
            client.tags.add(Tag.objects.get_or_create(name=f"tag{index}")[0])
            client.organisation = Organisation.objects.get_or_create(name=f"organisation {index}")[0]
            client.save()
            ask(model, client)
            receive_telemetry(client, {"battery": 0.5})
            send(model, client, loss=0.5)
            aggregate_now(model)

    grow(2)
    before = cost()
    grow(6)

    assert cost() == before
    assert before == (8, 3)


def test_candidate_has_what_it_reported_last(model: FederatedModel) -> None:
    client = make_client(model).client
    receive_telemetry(client, {"ping_ms": 9.0, "client_version": "0.0.9", "battery": 0.5})
    receive_telemetry(client, {"ping_ms": 5.0, "is_charging": True, "free_memory_bytes": 2**30})

    found = candidate(model, client)

    assert (found.ping_ms, found.is_charging, found.free_memory_bytes) == (5.0, True, 2**30)
    assert (found.battery, found.version, found.upload_mbps) == (None, None, None)
    assert found.seconds_since_seen == pytest.approx(0, abs=5)
