"""Forwarding of published rounds: the metrics that are sent on, and failures that harm no round."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from django.core.cache import cache
from django.utils import timezone
from pytest_django import Settings

from fma_django.evaluations.scores import receive_score
from fma_django.forwarders import forwarding
from fma_django.forwarders.forwarder import Number
from fma_django.models import FederatedModel, Forwarding
from fma_django.record.weights import JsonBody
from fma_django.updates.intake import UpdateFacts
from tests.records import aggregate_now, make_client, make_model, send_body, weights

pytestmark = pytest.mark.django_db


class Memory:
    """A place that remembers what it was sent, or fails."""

    target: ClassVar[str] = "memory"

    def __init__(self) -> None:
        self.numbers: list[Number] = []
        self.runs: list[str] = []
        self.ended: list[str] = []
        self.is_away = False

    def begin(self, federated_model: FederatedModel) -> str:
        self.runs.append(f"run {federated_model.pk}")
        return self.runs[-1]

    def send(self, run: str, numbers: Sequence[Number]) -> None:
        if self.is_away:
            raise ConnectionError("no answer")
        self.numbers += numbers

    def end(self, run: str) -> None:
        self.ended.append(run)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Memory]:
    place = Memory()
    monkeypatch.setattr(forwarding, "forwarders", lambda: [place])
    cache.clear()
    yield place
    cache.clear()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The models that a worker was asked to forward."""
    found: list[int] = []
    monkeypatch.setattr(forwarding.queue, "forward", found.append)  # type: ignore[attr-defined]
    return found


@pytest.fixture
def model() -> FederatedModel:
    return make_model(initial_model=weights())


def run_round(model: FederatedModel, loss: float) -> Any:
    client = make_client(model).client
    current = FederatedModel.objects.get(pk=model.pk)
    send_body(current, client, JsonBody(weights()), UpdateFacts(metrics={"loss": loss, "a/b": 1}))
    aggregate = aggregate_now(model)
    return aggregate, client


def test_every_round_is_sent_once(memory: Memory, model: FederatedModel, asked: list[int]) -> None:
    for loss in (0.5, 0.25):
        run_round(model, loss)
        forwarding.forward(model.pk)
        forwarding.forward(model.pk)

    sent = [(number.name, number.round, number.value) for number in memory.numbers]
    assert [row for row in sent if row[0] == "training/loss"] == [
        ("training/loss", 1, 0.5),
        ("training/loss", 2, 0.25),
    ]
    assert {name for name, *_ in sent} >= {"training/loss/min", "training/loss/max", "training/a_b-c14cddc0"}
    assert memory.runs == [f"run {model.pk}"]
    assert asked == [model.pk, model.pk]


def test_scores_that_arrived_later_are_sent_with_the_next_round(
    memory: Memory, model: FederatedModel, asked: list[int]
) -> None:
    aggregate, client = run_round(model, 0.5)
    forwarding.forward(model.pk)
    receive_score(aggregate, client, {"f1": 0.75})
    run_round(model, 0.25)
    forwarding.forward(model.pk)

    assert [(n.round, n.value) for n in memory.numbers if n.name == "validation/f1"] == [(1, 0.75)]


def test_place_that_is_away_costs_no_round_and_is_tried_again(
    memory: Memory, model: FederatedModel, asked: list[int]
) -> None:
    memory.is_away = True
    run_round(model, 0.5)
    forwarding.forward(model.pk)
    run_round(model, 0.25)
    assert not memory.numbers

    memory.is_away = False
    forwarding.forward(model.pk)
    assert not memory.numbers  # it rests for a while
    cache.clear()
    asked.clear()
    forwarding.sweep_forwarding()
    assert asked == [model.pk]
    forwarding.forward(model.pk)

    assert [number.round for number in memory.numbers if number.name == "training/loss"] == [1, 2]
    asked.clear()
    forwarding.sweep_forwarding()
    assert asked == []


def test_one_worker_at_a_time_sends(memory: Memory, model: FederatedModel, asked: list[int]) -> None:
    run_round(model, 0.5)
    busy = Forwarding.objects.create(
        federated_model=model, target="memory", busy_until=timezone.now() + timedelta(minutes=1)
    )
    forwarding.forward(model.pk)
    assert not memory.runs

    Forwarding.objects.filter(pk=busy.pk).update(busy_until=timezone.now())
    forwarding.forward(model.pk)

    assert len(memory.runs) == 1
    assert Forwarding.objects.get().busy_until is None


def test_run_ends_with_the_experiment(memory: Memory, model: FederatedModel, asked: list[int]) -> None:
    run_round(model, 0.5)
    FederatedModel.objects.update(
        ended_on="2026-01-01T00:00Z", end_reason="cancelled", allow_aggregation=False
    )

    forwarding.forward(model.pk)

    assert memory.ended == [f"run {model.pk}"]


def test_model_that_is_gone_is_no_error(memory: Memory) -> None:
    forwarding.forward(10**6)


def test_nothing_is_asked_for_without_a_place(model: FederatedModel, asked: list[int]) -> None:
    run_round(model, 0.5)

    assert asked == []
    assert not Forwarding.objects.exists()


def test_tensorboard_reads_what_was_written(
    model: FederatedModel, settings: Settings, tmp_path: Path, asked: list[int]
) -> None:
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    settings.FMA_TENSORBOARD_DIR = tmp_path
    for loss in (0.5, 0.25):
        run_round(model, loss)
        forwarding.forward(model.pk)

    (file,) = (tmp_path / f"model-{model.pk}").iterdir()
    events = list(loader.EventFileLoader(str(file)).Load())

    assert events[0].file_version == "brain.Event:2"
    losses = [
        (event.step, value.tensor.float_val[0])
        for event in events
        for value in event.summary.value
        if value.tag == "training/loss"
    ]
    assert losses == [(1, 0.5), (2, 0.25)]
    closed = [
        found.closed_on.timestamp()
        for found in model.rounds.filter(closed_on__isnull=False).order_by("number")
    ]
    assert sorted({event.wall_time for event in events}) == pytest.approx(closed)


def test_no_two_metrics_become_one_curve(memory: Memory, model: FederatedModel) -> None:
    names = ["Größe", "大きさ", "a_b", "a/b", "a:b", " a_b"]
    client = make_client(model).client
    send_body(model, client, JsonBody(weights()), UpdateFacts(metrics=dict.fromkeys(names, 1.0)))
    aggregate_now(model)

    forwarding.forward(model.pk)

    sent = {number.name for number in memory.numbers}
    assert len(sent) == len(memory.numbers) == 3 * len(names)
    assert {"training/Größe", "training/大きさ/min", "training/a_b/max"} <= sent
