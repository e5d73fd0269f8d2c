"""While no worker runs, updates of a due round do not enqueue one task each; and none that is needed is left out."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from fma_django.clients.registration import revoke_client
from fma_django.experiments import lifecycle
from fma_django.models import Client, FederatedModel, Round
from fma_django.rounds import claiming
from fma_django.work.sweep import sweep_rounds
from tests.records import aggregate_now, make_client, make_model, send_update, weights

pytestmark = pytest.mark.django_db


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rounds whose aggregation was enqueued."""
    found: list[int] = []
    monkeypatch.setattr("fma_django.queue.aggregate", found.append)
    return found


@pytest.fixture
def model(asked: list[int]) -> FederatedModel:
    return make_model(initial_model=weights(), requirement="require_x_updates", requirement_args=[2])


@pytest.fixture
def send(model: FederatedModel, django_capture_on_commit_callbacks: Any) -> Any:
    def send(*clients: Client) -> None:
        for client in clients:
            with django_capture_on_commit_callbacks(execute=True):
                send_update(model, client)

    return send


def clients_of(model: FederatedModel, number: int) -> list[Client]:
    return [make_client(model).client for _ in range(number)]


def current(model: FederatedModel) -> Round:
    return model.rounds.get(state="collecting")


def test_many_updates_of_a_due_round_are_one_task(model: FederatedModel, send: Any, asked: list[int]) -> None:
    clients = clients_of(model, 5)

    send(*clients, *clients, *clients)

    assert asked == [current(model).pk]


def test_the_next_round_has_a_task_of_its_own(model: FederatedModel, send: Any, asked: list[int]) -> None:
    clients = clients_of(model, 2)
    send(*clients)
    aggregate_now(model)
    asked.clear()

    send(*clients)

    assert asked == [current(model).pk]


@pytest.mark.parametrize("minutes", [-1, 1], ids=["long ago", "by a clock that is ahead"])
def test_a_task_that_may_be_lost_is_enqueued_again(
    model: FederatedModel, send: Any, asked: list[int], minutes: int
) -> None:
    send(*clients_of(model, 2))
    Round.objects.update(asked_on=timezone.now() + timedelta(minutes=minutes))
    asked.clear()

    send(*clients_of(model, 2))

    assert asked == [current(model).pk]


def test_the_sweep_enqueues_what_was_lost_with_its_process(
    model: FederatedModel, send: Any, asked: list[int], django_capture_on_commit_callbacks: Any
) -> None:
    send(*clients_of(model, 2))
    asked.clear()  # killed between the commit and the enqueueing

    Round.objects.update(asked_on=timezone.now() - timedelta(seconds=31))
    with django_capture_on_commit_callbacks(execute=True):
        sweep_rounds()

    assert asked == [current(model).pk]


def test_a_task_that_a_worker_took_in_vain_is_enqueued_again_at_once(
    model: FederatedModel, send: Any, asked: list[int], django_capture_on_commit_callbacks: Any
) -> None:
    send(*clients_of(model, 2))
    lifecycle.pause(model)
    assert claiming.claim(asked.pop()) is None

    with django_capture_on_commit_callbacks(execute=True):
        lifecycle.resume(model)

    assert asked == [current(model).pk]


def test_a_round_that_is_due_again_has_a_task(model: FederatedModel, send: Any, asked: list[int]) -> None:
    first, second, third = clients_of(model, 3)
    send(first, second)
    revoke_client(first)
    assert claiming.claim(asked.pop()) is None

    send(third)

    assert asked == [current(model).pk]
