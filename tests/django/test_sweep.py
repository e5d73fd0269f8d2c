"""The schedule takes up what was lost and clears away what nothing refers to."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.utils import timezone
from django_q.models import Schedule

from fma_django.clients.registration import revoke_client
from fma_django.models import FederatedModel, IdempotencyKey, Round, Worker
from fma_django.rounds import claiming
from fma_django.storage import get_store
from fma_django.work import heartbeat, schedules, tasks
from fma_django.work.sweep import sweep_files, sweep_memory, sweep_rounds
from tests.records import aggregate_now, make_client, make_model, send_update, weights

pytestmark = pytest.mark.django_db


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rounds whose aggregation was asked for."""
    found: list[int] = []
    monkeypatch.setattr("fma_django.queue.aggregate", found.append)
    return found


def sweep(capture: Any) -> None:
    with capture(execute=True):
        sweep_rounds()


def due_round(model: FederatedModel) -> Round:
    for _ in range(2):
        send_update(model, make_client(model).client)
    return model.rounds.get(state="collecting")


def test_a_round_whose_lease_expired_is_asked_for_again(
    model: FederatedModel, asked: list[int], django_capture_on_commit_callbacks: Any
) -> None:
    due = due_round(model)
    claiming.claim(due.pk)
    sweep(django_capture_on_commit_callbacks)
    assert asked == []
    Round.objects.filter(pk=due.pk).update(lease_expires_at=timezone.now())
    sweep(django_capture_on_commit_callbacks)
    assert asked == [due.pk]


def test_a_request_that_got_lost_is_made_again(
    model: FederatedModel, asked: list[int], django_capture_on_commit_callbacks: Any
) -> None:
    due = due_round(model)
    sweep(django_capture_on_commit_callbacks)
    assert asked == []  # it was asked for a moment ago
    Round.objects.filter(pk=due.pk).update(asked_on=timezone.now() - timedelta(minutes=1))
    sweep(django_capture_on_commit_callbacks)
    assert asked == [due.pk]


def test_paused_and_unmet_rounds_are_left_alone(
    model: FederatedModel, asked: list[int], django_capture_on_commit_callbacks: Any
) -> None:
    send_update(model, make_client(model).client)
    paused = make_model(allow_aggregation=False)
    send_update(paused, make_client(paused).client)
    sweep(django_capture_on_commit_callbacks)
    assert asked == []


def make_old(store_folder: Path) -> None:
    for path in store_folder.rglob("*"):
        if path.is_file():
            os.utime(path, (0, 0))


def orphan() -> str:
    import hashlib

    content = b"nobody speaks of this"
    path = get_store().spool_dir() / "orphan"
    path.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    get_store().put_file(path, sha256)
    return sha256


def test_old_files_without_a_row_are_removed_and_all_others_kept(
    model: FederatedModel, storage: Path
) -> None:
    due_round(model)
    aggregate = aggregate_now(model)
    nobodys = orphan()
    (get_store().spool_dir() / "crashed.part").write_bytes(b"half an upl")
    make_old(storage)
    assert [tasks.sweep_files(), tasks.sweep_files()] == [0, 1]  # the first takes the store
    assert get_store().size_bytes(nobodys) is None
    assert get_store().size_bytes(aggregate.sha256) == aggregate.size_bytes
    assert all(get_store().size_bytes(update.sha256) for update in model.model_updates.all())
    assert list(get_store().spool_dir().iterdir()) == []


def test_a_young_file_is_kept_for_its_row_may_be_on_the_way(model: FederatedModel) -> None:
    sweep_files()
    nobodys = orphan()
    assert sweep_files() == 0
    assert get_store().size_bytes(nobodys) is not None


def test_the_files_of_a_deleted_model_go(storage: Path) -> None:
    sweep_files()  # as a worker does when it starts, and so takes the new store
    model = make_model(initial_model=weights())
    model.delete()
    make_old(storage)
    assert sweep_files() == 1


def test_old_keys_and_workers_are_forgotten() -> None:
    long_ago = timezone.now() - timedelta(days=2)
    for name, moment in (("old", long_ago), ("new", timezone.now())):
        key = IdempotencyKey.objects.create(scope="user 1", key=name, fingerprint="f", object_id="1")
        IdempotencyKey.objects.filter(pk=key.pk).update(created_on=moment)
        Worker.objects.create(name=name, seen_on=moment)
    sweep_memory()
    assert [key.key for key in IdempotencyKey.objects.all()] == ["new"]
    assert [worker.name for worker in Worker.objects.all()] == ["new"]


def test_sessions_that_are_over_are_forgotten() -> None:
    for key, hours in (("over", -1), ("open", 1)):
        Session.objects.create(
            session_key=key, session_data="", expire_date=timezone.now() + timedelta(hours=hours)
        )
    sweep_memory()
    assert [session.session_key for session in Session.objects.all()] == ["open"]


def test_a_heartbeat_says_that_this_process_is_alive() -> None:
    heartbeat.beat()
    heartbeat.beat()
    worker = Worker.objects.get()
    assert worker.name.endswith(f":{os.getpid()}")
    assert worker.seen_on >= worker.started_on


def test_migrate_points_the_schedules_of_an_earlier_version_at_todays_tasks() -> None:
    Schedule.objects.update(func="fma_django.tasks.sweep_rounds", minutes=7)

    schedules.create()

    funcs = set(Schedule.objects.values_list("func", "minutes"))
    assert funcs == {("fma_django.work.tasks.sweep_rounds", 7), ("fma_django.work.tasks.sweep_files", 7)}


def test_migrate_makes_the_schedules_once() -> None:
    schedules.create()
    assert Schedule.objects.filter(name__startswith="fma:").count() == 2


def test_a_model_whose_plugin_is_gone_holds_up_nobody(
    model: FederatedModel, asked: list[int], django_capture_on_commit_callbacks: Any
) -> None:
    broken = make_model()
    ann = make_client(broken).client
    send_update(broken, ann)
    FederatedModel.objects.filter(pk=broken.pk).update(requirement="of a plugin that is gone")
    due = due_round(model)
    Round.objects.filter(pk=due.pk).update(asked_on=timezone.now() - timedelta(minutes=1))
    sweep(django_capture_on_commit_callbacks)
    assert asked == [due.pk]
    revoke_client(ann)
    ann.refresh_from_db()
    assert not ann.is_active


def test_a_round_whose_aggregator_is_gone_waits_until_it_is_back(model: FederatedModel) -> None:
    due = due_round(model)
    configuration = model.config_versions.get()
    model.config_versions.update(
        configuration={**configuration.configuration, "aggregator": "of a plugin that is gone"}
    )
    assert tasks.aggregate(due.pk) is None
    due.refresh_from_db()
    assert due.state == "collecting"
    configuration.save()
    assert tasks.aggregate(due.pk) is not None
