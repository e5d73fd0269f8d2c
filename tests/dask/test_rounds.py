"""Rounds whose arithmetic is done on a cluster: over a shared disk, over S3, and when the cluster dies."""

import io
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Future
from django.utils import timezone
from pytest_django import Settings

from fma_core.aggregation.aggregators import aggregators
from fma_core.arrays.codecs.safetensors import encode
from fma_django.dask import executor as dask_executor
from fma_django.experiments.changes import create_federated_model
from fma_django.models import FederatedModel, Round
from fma_django.models.round import RoundState
from fma_django.record.weights import SafetensorsBody
from fma_django.rounds import folding as fold_round
from fma_django.rounds.aggregation import aggregate_round
from fma_django.rounds.verification import verify_round
from fma_django.storage import get_store
from fma_django.updates.intake import UpdateFacts
from tests.dask.rules import DeadlyMean, SlowMean
from tests.records import make_client, make_user, send_body
from tests.servers.dask import DaskCluster
from tests.servers.free_port import free_port
from tests.servers.s3 import S3Bucket

pytestmark = [pytest.mark.django_db, pytest.mark.processes, pytest.mark.timeout(180)]

NUM_COLUMNS = 300_000
MULTI_KRUM: dict[str, Any] = {"aggregator": "multi_krum", "aggregator_params": {"f": 0}}
FEDADAM: dict[str, Any] = {"aggregator": "mean", "optimiser": {"name": "fedadam"}}


@pytest.fixture
def on_disk(cluster: DaskCluster, settings: Settings, tmp_path: Path) -> None:
    settings.FMA_STORAGE_URL = (tmp_path / "storage").as_uri()
    settings.FMA_DASK_SCHEDULER = cluster.address


@pytest.fixture
def on_s3(
    cluster: DaskCluster,
    bucket: S3Bucket,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in bucket.server.environment.items():
        monkeypatch.setenv(name, value)
    settings.FMA_STORAGE_URL = bucket.storage_url()
    settings.FMA_S3_ENDPOINT_URL = bucket.server.endpoint_url
    settings.FMA_SPOOL_DIR = str(tmp_path / "spool")
    settings.FMA_DASK_SCHEDULER = cluster.address


def weights(seed: int) -> SafetensorsBody:
    values = np.random.default_rng(seed).normal(size=NUM_COLUMNS).astype(np.float32)
    body = encode({"count": np.array([seed]), "w": values})
    return SafetensorsBody(io.BytesIO(body).read, len(body))


def send(model: FederatedModel, seed: int) -> None:
    newest = model.aggregates.order_by("pk").last()
    facts = UpdateFacts(base_aggregate_id=0 if newest is None else newest.pk, num_examples=seed)
    send_body(model, make_client(model).client, weights(seed), facts)


def due_round(**options: Any) -> Round:
    model = create_federated_model(
        developer=make_user(),
        name="on a cluster",
        initial_model=weights(0),
        allow_aggregation=True,
        requirement="require_x_updates",
        requirement_args=[3],
        **options,
    )
    return next_round(model)


def next_round(model: FederatedModel) -> Round:
    for seed in (1, 2, 3):
        send(FederatedModel.objects.get(pk=model.pk), seed)
    return model.rounds.get(state=RoundState.COLLECTING)


def two_rounds(settings: Settings, executor: str, **options: Any) -> list[tuple[str, str]]:
    """The digests of the weights and states that two rounds of a new model publish."""
    settings.FMA_EXECUTOR = executor
    first = due_round(**options)
    found = []
    for due in (first, None):
        due = due or next_round(first.federated_model)
        aggregate = aggregate_round(due.pk)
        due.refresh_from_db()
        assert aggregate is not None, (due.state, due.failure_detail)
        found.append((aggregate.sha256, aggregate.state_sha256))
    return found


def test_over_a_shared_disk(settings: Settings, on_disk: None) -> None:
    assert two_rounds(settings, "dask", **MULTI_KRUM) == two_rounds(settings, "serial", **MULTI_KRUM)


@pytest.mark.s3
@pytest.mark.parametrize("options", [FEDADAM, MULTI_KRUM], ids=["state", "distances"])
def test_over_s3_nothing_is_copied_and_nothing_is_left(
    settings: Settings,
    on_s3: None,
    bucket: S3Bucket,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
) -> None:
    expected = two_rounds(settings, "serial", **options)
    monkeypatch.setattr(type(get_store()), "fetch", None)

    assert two_rounds(settings, "dask", **options) == expected
    assert fragments(bucket) == []
    assert list(get_store().spool_dir().iterdir()) == []


@pytest.mark.s3
def test_verify_works_on_the_cluster_too(settings: Settings, on_s3: None) -> None:
    settings.FMA_EXECUTOR = "serial"
    due = due_round(aggregator="mean")
    assert aggregate_round(due.pk) is not None
    settings.FMA_EXECUTOR = "dask"

    assert verify_round(FederatedModel.objects.get(pk=due.federated_model_id)).is_equal


@pytest.mark.s3
def test_a_lost_blob_costs_its_update(settings: Settings, on_s3: None, bucket: S3Bucket) -> None:
    settings.FMA_EXECUTOR = "dask"
    due = due_round(aggregator="mean")
    send(due.federated_model, 4)
    lost = due.model_updates.earliest("pk")
    get_store().delete(lost.sha256)

    aggregate = aggregate_round(due.pk)

    lost.refresh_from_db()
    assert aggregate is not None
    assert "is not in the store" in lost.status_reason
    assert fragments(bucket) == []


@pytest.mark.parametrize("store", ["on_disk", "on_s3"])
def test_a_killed_worker_costs_a_retry_and_not_the_round(
    settings: Settings,
    cluster: DaskCluster,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
    store: str,
) -> None:
    request.getfixturevalue(store)
    expected = two_rounds(settings, "serial", aggregator="mean")[:1]
    settings.FMA_EXECUTOR = "dask"
    due = due_round(aggregator="mean")
    victim = cluster.workers[-1]
    sign_of_work = cluster.folder / str(victim.pid)
    killed: list[int] = []

    def kill() -> None:
        limit = time.monotonic() + 30
        while time.monotonic() < limit and not sign_of_work.exists():
            time.sleep(0.005)
        os.kill(victim.pid, signal.SIGKILL)
        killed.append(victim.wait())

    killer = threading.Thread(target=kill)
    with aggregators.register_temporarily("mean", SlowMean):
        killer.start()
        aggregate = aggregate_round(due.pk)
    killer.join()

    due.refresh_from_db()
    assert sign_of_work.exists()
    assert killed == [-signal.SIGKILL]
    assert aggregate is not None, (due.state, due.failure_detail)
    assert [(aggregate.sha256, aggregate.state_sha256)] == expected
    assert due.attempts == 1
    cluster.start_workers(1)


def test_without_a_scheduler_the_round_waits(
    settings: Settings, on_disk: None, cluster: DaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_executor, "CONNECT_LIMIT_S", 0.5)
    settings.FMA_EXECUTOR = "dask"
    settings.FMA_DASK_SCHEDULER = f"tcp://127.0.0.1:{free_port()}"
    due = due_round(aggregator="mean")

    for _ in range(4):  # more often than FMA_MAX_ATTEMPTS
        assert aggregate_round(due.pk) is None

    due.refresh_from_db()
    assert due.state == RoundState.AGGREGATING
    settings.FMA_DASK_SCHEDULER = cluster.address
    assert aggregate_round(due.pk) is not None


def test_without_workers_the_round_waits_and_the_lease_is_looked_at(
    settings: Settings, on_disk: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(dask_executor, "WORKERS_LIMIT_S", 1)
    looks: list[float] = []
    real = fold_round.chosen_executor  # type: ignore[attr-defined]
    monkeypatch.setattr(
        fold_round,
        "chosen_executor",
        lambda check: real(lambda share: (looks.append(share), check(share))[1]),
    )
    settings.FMA_EXECUTOR = "dask"
    due = due_round(aggregator="mean")

    with DaskCluster(tmp_path / "empty") as empty:
        settings.FMA_DASK_SCHEDULER = empty.address
        assert aggregate_round(due.pk) is None

    due.refresh_from_db()
    assert due.state == RoundState.AGGREGATING
    assert len(looks) >= 2


def test_a_cluster_that_goes_in_the_middle_postpones_the_round(
    settings: Settings, on_disk: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(dask_executor, "WORKERS_LIMIT_S", 1)
    settings.FMA_EXECUTOR = "dask"
    due = due_round(aggregator="mean")

    with DaskCluster(tmp_path / "doomed", {"SLOW_MEAN_FOLDER": str(tmp_path)}) as doomed:
        doomed.start_workers(1)
        settings.FMA_DASK_SCHEDULER = doomed.address

        def kill() -> None:
            limit = time.monotonic() + 30
            while time.monotonic() < limit and not (tmp_path / str(doomed.workers[0].pid)).exists():
                time.sleep(0.005)
            doomed.scheduler.kill()

        killer = threading.Thread(target=kill)
        with aggregators.register_temporarily("mean", SlowMean):
            killer.start()
            assert aggregate_round(due.pk) is None
        killer.join()

    due.refresh_from_db()
    assert (due.state, due.failure_code) == (RoundState.AGGREGATING, "")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_worker_that_goes_with_its_answer_postpones_the_round(
    settings: Settings, on_disk: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: signal.Signals
) -> None:
    """The batch is finished and its answer not yet fetched; the scheduler lives on."""
    monkeypatch.setattr(dask_executor, "WORKERS_LIMIT_S", 1)
    monkeypatch.setattr(dask_executor, "ANSWER_LIMIT_S", 1)
    settings.FMA_EXECUTOR = "dask"
    due = due_round(aggregator="mean")

    with DaskCluster(tmp_path / "doomed") as doomed:
        doomed.start_workers(1)
        settings.FMA_DASK_SCHEDULER = doomed.address

        def end_worker(future: Future) -> None:
            os.kill(doomed.workers[0].pid, how)
            if how == signal.SIGKILL:
                doomed.scheduler.wait_until(lambda: future.status == "lost", "the answer was lost")

        before_first_answer(monkeypatch, end_worker)
        assert aggregate_round(due.pk) is None

    due.refresh_from_db()
    assert (due.state, due.failure_code) == (RoundState.AGGREGATING, "")


def test_an_answer_that_was_lost_is_computed_again(
    settings: Settings, on_disk: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(dask_executor, "ANSWER_LIMIT_S", 5)
    expected = two_rounds(settings, "serial", aggregator="mean")[:1]
    settings.FMA_EXECUTOR = "dask"
    due = due_round(aggregator="mean")

    with DaskCluster(tmp_path / "renewed") as renewed:
        renewed.start_workers(1)
        settings.FMA_DASK_SCHEDULER = renewed.address

        def exchange_worker(future: Future) -> None:
            renewed.workers[0].kill()
            renewed.scheduler.wait_until(lambda: future.status == "lost", "the answer was lost")
            renewed.start_workers(1)

        before_first_answer(monkeypatch, exchange_worker)
        aggregate = aggregate_round(due.pk)

    assert aggregate is not None
    assert [(aggregate.sha256, aggregate.state_sha256)] == expected


def before_first_answer(monkeypatch: pytest.MonkeyPatch, act: Callable[[Future], None]) -> None:
    """Do something when the first batch is finished, before its answer is fetched."""
    fetched: list[Future] = []
    real = Future.result

    def result(future: Future, *args: Any, **kwargs: Any) -> Any:
        fetched.append(future)
        if len(fetched) == 1:
            assert future.status == "finished"
            act(future)
        return real(future, *args, **kwargs)

    monkeypatch.setattr(Future, "result", result)


def test_a_scheduler_that_never_speaks_postpones_the_round(
    settings: Settings, on_disk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system accepts connections for it. Dask itself waits for such a one without end."""
    monkeypatch.setattr(dask_executor, "CONNECT_LIMIT_S", 0.5)
    settings.FMA_EXECUTOR = "dask"
    due = due_round(aggregator="mean")

    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.FMA_DASK_SCHEDULER = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        assert aggregate_round(due.pk) is None

    due.refresh_from_db()
    assert (due.state, due.failure_code) == (RoundState.AGGREGATING, "")


def test_a_scheduler_that_stops_in_the_middle_postpones_the_round(
    settings: Settings, on_disk: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(dask_executor, "CONNECT_LIMIT_S", 1)
    monkeypatch.setattr(dask_executor, "ANSWER_LIMIT_S", 1)
    settings.FMA_EXECUTOR = "dask"
    due = due_round(aggregator="mean")

    with DaskCluster(tmp_path / "stopped") as stopped:
        stopped.start_workers(1)
        settings.FMA_DASK_SCHEDULER = stopped.address
        before_first_answer(monkeypatch, lambda _: os.kill(stopped.scheduler.pid, signal.SIGSTOP))
        assert aggregate_round(due.pk) is None

    due.refresh_from_db()
    assert (due.state, due.failure_code) == (RoundState.AGGREGATING, "")


def test_a_round_that_kills_its_workers_is_not_tried_for_ever(
    settings: Settings, on_disk: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(dask_executor, "ANSWER_LIMIT_S", 5)
    settings.FMA_EXECUTOR = "dask"
    settings.FMA_MAX_ATTEMPTS = 1
    due = due_round(aggregator="mean")

    with DaskCluster(tmp_path / "deadly", {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}) as deadly:
        deadly.start_workers(1)
        settings.FMA_DASK_SCHEDULER = deadly.address
        with aggregators.register_temporarily("mean", DeadlyMean):
            assert aggregate_round(due.pk) is None
        due.refresh_from_db()
        assert due.state == RoundState.AGGREGATING
        Round.objects.filter(pk=due.pk).update(lease_expires_at=timezone.now())
        assert aggregate_round(due.pk) is None

    due.refresh_from_db()
    assert (due.state, due.failure_code) == (RoundState.FAILED, "too_many_attempts")


def fragments(bucket: S3Bucket) -> list[str]:
    listed = bucket.server.client().list_objects_v2(Bucket=bucket.name, Prefix="fma/fragments/")
    return [found["Key"] for found in listed.get("Contents", ())]
