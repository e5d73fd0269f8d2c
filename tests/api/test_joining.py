"""`POST models/<id>/join/`: may a client take part now, and what it must know then."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from fma_django.clients.registration import Registration
from fma_django.clients.reports import receive_telemetry
from fma_django.experiments.changes import change_federated_model
from fma_django.experiments.lifecycle import cancel_experiment, pause, start
from fma_django.models import Client, FederatedModel, Participation, Round, Tag
from tests.api.callers import API, as_client, wait_of
from tests.records import WEIGHTS, aggregate_now, make_aggregate, make_client, make_model, send_update

pytestmark = pytest.mark.django_db


def join(caller: APIClient, model: FederatedModel, query: str = "") -> Any:
    answer = caller.post(f"{API}models/{model.pk}/join/{query}")
    assert answer.status_code == 200, answer.content
    return answer


def choosing(developer: Any, **options: Any) -> FederatedModel:
    """A model whose rounds ask one of its clients, by default."""
    said = {"selector": {"name": "random"}, "round_policy": {"goal": 1, "over_selection": 1}, **options}
    return make_model(developer, initial_model=WEIGHTS, **said)


def chosen_and_not(model: FederatedModel) -> tuple[APIClient, APIClient]:
    """Two clients of a model that asks one of them; it had to wait for the second."""
    pause(model)
    both = [make_client(model) for _ in range(2)]
    start(model)
    both.sort(key=lambda each: not is_chosen(each.client))
    return as_client(both[0]), as_client(both[1])


def is_chosen(client: Client) -> bool:
    return Participation.objects.filter(client=client, is_chosen=True).exists()


def test_whoever_is_registered_joins_a_model_that_asks_everyone(device: APIClient, alice: Any) -> None:
    model = make_model(alice, initial_model=WEIGHTS, client_config={"local_epochs": 2})
    ann = make_client(model)

    answer = join(as_client(ann), model).json()

    assert answer == {
        "accepted": True,
        "round": 1,
        "base_aggregate": None,
        "client_config": {"local_epochs": 2},
        "deadline_at": None,
    }


def test_the_answer_has_the_newest_aggregate_and_the_deadline(alice: Any) -> None:
    model = make_model(alice, round_policy={"deadline_s": 60})
    ann = make_client(model)
    aggregate = make_aggregate(model, ann.client)

    answer = join(as_client(ann), model).json()

    current = model.rounds.get(state="collecting")
    assert (answer["round"], answer["base_aggregate"]) == (2, aggregate.pk)
    assert answer["deadline_at"] == current.deadline_at.isoformat().replace("+00:00", "Z")


def test_who_was_chosen_is_accepted_and_who_was_not_hears_why(alice: Any) -> None:
    model = choosing(alice)
    chosen, other = chosen_and_not(model)

    accepted, refused = join(chosen, model), join(other, model)

    assert accepted.json()["accepted"] is True
    assert "Retry-After" not in accepted.headers
    said = refused.json()
    assert (said["accepted"], said["reason"], said["round"]) == (False, "not_chosen", 1)
    assert "random" in said["detail"]
    assert int(refused.headers["Retry-After"]) == said["retry_after_s"] > 0
    assert "client_config" not in said


def test_joining_again_changes_nothing(alice: Any) -> None:
    model = choosing(alice)
    chosen, _ = chosen_and_not(model)

    first, second = join(chosen, model).json(), join(chosen, model).json()

    assert first == second
    assert Participation.objects.filter(joined_on__isnull=False).count() == 1


def test_who_has_answered_waits_for_the_next_round(device: APIClient, alice: Any) -> None:
    model = make_model(alice, requirement="require_x_updates", requirement_args=[2])
    ann = make_client(model)
    send_update(model, ann.client)

    assert join(as_client(ann), model).json()["reason"] == "already_answered"

    send_update(model, make_client(model).client)
    aggregate_now(model)
    assert join(as_client(ann), model).json()["accepted"] is True


def test_who_sent_what_was_dropped_may_send_again(alice: Any) -> None:
    model = make_model(alice, requirement="require_x_updates", requirement_args=[2])
    ann = make_client(model)
    send_update(model, ann.client)
    pause(model)
    change_federated_model(model, {"update_kind": "delta"})
    start(model)

    assert join(as_client(ann), model).json()["accepted"] is True


@pytest.mark.parametrize(
    ("state", "reason", "comes_back"),
    [("paused", "paused", True), ("ended", "experiment_ended", False), ("waiting", "not_started", True)],
)
def test_reasons_of_the_model(alice: Any, state: str, reason: str, comes_back: bool) -> None:
    goal = 2 if state == "waiting" else 1
    model = make_model(alice, round_policy={"goal": goal})
    ann = make_client(model)
    if state == "paused":
        pause(model)
    if state == "ended":
        cancel_experiment(model)

    answer = join(as_client(ann), model)

    assert answer.json()["reason"] == reason
    assert (answer.json()["retry_after_s"] is not None) == comes_back
    assert ("Retry-After" in answer.headers) == comes_back


def test_a_full_round_takes_nobody_more(alice: Any) -> None:
    model = make_model(alice, round_policy={"goal": 2, "max_updates": 2})
    clients = [make_client(model) for _ in range(3)]
    for each in clients[:2]:
        send_update(model, each.client)

    assert join(as_client(clients[2]), model).json()["reason"] == "round_full"


def test_who_registered_later_waits(alice: Any) -> None:
    model = choosing(alice)
    make_client(model)

    assert join(as_client(make_client(model)), model).json()["reason"] == "registered_later"


def test_who_is_not_registered_is_told_to(alice: Any) -> None:
    model = make_model(alice)

    answer = as_client(make_client()).post(f"{API}models/{model.pk}/join/")

    assert (answer.status_code, answer.json()["code"]) == (403, "not_registered")
    assert "register_client" in answer.json()["detail"]


def test_each_client_is_told_what_is_meant_for_it(alice: Any) -> None:
    model = make_model(alice)
    ann, tom = make_client(model), make_client(model)
    tom.client.tags.add(Tag.objects.create(name="gpu"))
    change_federated_model(
        model,
        {
            "client_config": {"batch_size": 8, "lr": {"$schedule": {"name": "constant", "value": 0.5}}},
            "client_config_overrides": [
                {"tags": ["gpu"], "set": {"batch_size": 64}},
                {"clients": [str(ann.client.pk)], "set": {"lr": 0.25}},
            ],
        },
    )

    said = [join(as_client(each), model).json()["client_config"] for each in (ann, tom)]

    assert said == [{"batch_size": 8, "lr": 0.25}, {"batch_size": 64, "lr": 0.5}]


def test_the_round_tells_each_client_the_same(alice: Any, owner: APIClient) -> None:
    model = make_model(alice)
    ann = make_client(model)
    change = {
        "client_config": {"lr": 1.0},
        "client_config_overrides": [{"clients": [str(ann.client.pk)], "set": {"lr": 0.25}}],
    }
    change_federated_model(model, change)

    said = [
        caller.get(f"{API}models/{model.pk}/rounds/1/").json()["client_config"]
        for caller in (as_client(ann), owner)
    ]

    assert said == [{"lr": 0.25}, {"lr": 1.0}]


def test_many_clients_do_not_come_back_at_once(alice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fma_django.clients.pacing.num_clients", lambda _: 1_000_000)
    model = make_model(alice, allow_aggregation=False)
    clients = [make_client(model) for _ in range(8)]

    told = [join(as_client(each), model).json()["retry_after_s"] for each in clients]
    again = [join(as_client(each), model).json()["retry_after_s"] for each in clients]

    assert told == again
    assert len(set(told)) == 8
    assert max(told) - min(told) > 3600
    assert all(5 <= seconds <= 86_400 for seconds in told)


def test_who_waits_comes_back_when_the_round_will_be_over(alice: Any) -> None:
    model = choosing(alice)
    chosen_and_not(model)
    send_update(model, Client.objects.get(participations__is_chosen=True))
    aggregate_now(model)
    now = timezone.now()
    Round.objects.filter(number=1).update(started_on=now - timedelta(seconds=100), closed_on=now)
    refused = next(
        each for each in model.rounds.get(number=2).participations.all() if not each.is_chosen
    ).client
    from fma_django.clients.joining import join as ask

    assert 90 <= (ask(model, refused).retry_after_s or 0) <= 101


@pytest.mark.parametrize("wait", ["x", "-1", "nan"])
def test_a_wait_that_is_none_is_refused(alice: Any, wait: str) -> None:
    model = make_model(alice)

    answer = as_client(make_client(model)).post(f"{API}models/{model.pk}/join/?wait={wait}")

    assert answer.status_code == 400
    assert answer.json()["wait"]


@pytest.mark.parametrize(("state", "waits"), [("paused", True), ("running", False), ("ended", False)])
def test_who_may_hear_another_answer_waits_for_it(alice: Any, state: str, waits: bool) -> None:
    model = make_model(alice, allow_aggregation=state == "running")
    if state == "ended":
        cancel_experiment(model)

    answer = join(as_client(make_client(model)), model, "?wait=7")

    assert wait_of(answer) == ((frozenset({f"model:{model.pk}"}), 7.0) if waits else None)


def test_clients_are_not_counted_for_each_that_asks(alice: Any) -> None:
    model = make_model(alice, allow_aggregation=False)
    first, second = make_client(model), make_client(model)

    before = queries(first, model)

    assert queries(second, model) == before - 1


def test_asking_is_cheap_and_costs_the_same_among_many(alice: Any) -> None:
    def cost(others: int) -> tuple[int, int]:
        model = choosing(alice, client_config_overrides=[{"tags": ["gpu"], "set": {"a": 1}}])
        pause(model)
        clients = [make_client(model) for _ in range(2 + others)]
        start(model)
        clients.sort(key=lambda each: not is_chosen(each.client))
        return queries(clients[0], model), queries(clients[-1], model)

    few, many = cost(0), cost(10)
    assert few == many
    assert max(few) <= 11


def queries(registration: Registration, model: FederatedModel) -> int:
    caller = as_client(registration)
    with CaptureQueriesContext(connection) as captured:
        join(caller, model)
    return len(captured)


def test_who_was_chosen_and_ran_low_since_is_not_accepted(alice: Any) -> None:
    model = choosing(
        alice,
        eligibility=[
            {"name": "battery", "min_level": 0.5},
            {"name": "min_rounds_between_turns", "rounds": 9},
        ],
        allow_aggregation=False,
    )
    ann = make_client(model)
    receive_telemetry(ann.client, {"battery": 0.9, "is_charging": False})
    start(model)

    accepted = join(as_client(ann), model).json()
    receive_telemetry(ann.client, {"battery": 0.2, "is_charging": False})
    refused = join(as_client(ann), model).json()

    # That it has just had its turn is no reason: it is this one.
    assert accepted["accepted"] is True
    assert refused["accepted"] is False
    assert "20%" in refused["detail"]
