"""The queue in the database: workers are woken, and each task is one worker's."""

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_q.conf import Conf
from django_q.models import OrmQ

from fma_django import wakeups
from fma_django.wakeups import choose
from fma_django.work.broker import LISTEN_S, WokenBroker

pytestmark = pytest.mark.django_db(transaction=True)

NEVER_S = 3600


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[WokenBroker]:
    """One that has looked once and looks again only when it is woken."""
    monkeypatch.setattr(Conf, "POLL", NEVER_S)
    broker = made()
    yield broker
    close(broker)


def made() -> WokenBroker:
    broker = WokenBroker("fma")
    assert broker.dequeue() == []
    return broker


def close(broker: WokenBroker) -> None:
    assert broker._listener is not None
    broker._listener.close()


def test_a_worker_is_woken_by_a_task(broker: WokenBroker) -> None:
    pk = broker.enqueue("payload")

    began = time.monotonic()
    assert broker.dequeue() == [(pk, "payload")]
    assert time.monotonic() - began < LISTEN_S


def test_what_waits_is_taken_one_after_the_other(broker: WokenBroker) -> None:
    first, second = broker.enqueue("first"), broker.enqueue("second")

    assert [broker.dequeue(), broker.dequeue(), broker.dequeue()] == [
        [(first, "first")],
        [(second, "second")],
        [],
    ]


def test_a_task_is_one_workers_and_the_next_is_for_the_other(broker: WokenBroker) -> None:
    other = made()
    both = [broker.enqueue("first"), broker.enqueue("second")]

    taken = [*broker.dequeue(), *other.dequeue()]

    assert [pk for pk, _ in taken] == both
    close(other)


def test_who_is_not_woken_looks_now_and_then(broker: WokenBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "say", lambda topic: None)
    monkeypatch.setattr(Conf, "POLL", 0.1)
    late = made()
    pk = broker.enqueue("payload")

    time.sleep(0.1)

    assert late.dequeue() == [(pk, "payload")]
    close(late)


def test_an_idle_worker_asks_the_database_nothing(broker: WokenBroker) -> None:
    with CaptureQueriesContext(connection) as queries:
        for _ in range(3):
            assert broker.dequeue() == []

    assert len(queries) == 0


def test_a_task_that_was_not_finished_is_taken_again_after_its_time(broker: WokenBroker) -> None:
    pk = broker.enqueue("payload")
    assert broker.dequeue()
    OrmQ.objects.filter(pk=pk).update(lock=timezone.now() - timedelta(seconds=1))

    wakeups.send(wakeups.TASKS)
    broker.dequeue()

    assert OrmQ.objects.get(pk=pk).lock > timezone.now()


def test_a_finished_task_is_gone(broker: WokenBroker) -> None:
    pk = broker.enqueue("payload")

    broker.acknowledge(pk)

    assert not OrmQ.objects.exists()


def test_a_task_of_a_machine_whose_clock_is_ahead_waits_for_nobody(
    broker: WokenBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = timezone.now() + timedelta(seconds=30)
    with monkeypatch.context() as patched:
        patched.setattr("fma_django.work.broker.timezone.now", lambda: ahead)
        broker.enqueue("payload")

    assert broker.dequeue()


def test_a_database_that_is_away_ends_no_worker(broker: WokenBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> Any:
        raise OperationalError("it is restarted")

    wakeups.send(wakeups.TASKS)
    with monkeypatch.context() as patched:
        patched.setattr(broker, "_claim", away)
        assert broker.dequeue() == []

    pk = broker.enqueue("payload")
    assert broker.dequeue() == [(pk, "payload")]
