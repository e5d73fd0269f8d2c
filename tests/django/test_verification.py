"""A published aggregate can be computed again from what is stored, and a tampered one is found out."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from fma_core.engine import ENGINE_VERSION
from fma_django.clients.registration import revoke_client
from fma_django.errors import NotVerifiable
from fma_django.experiments.changes import change_federated_model
from fma_django.models import Client, FederatedModel, ModelAggregate, ModelUpdate, Round
from fma_django.models.model_update import UpdateStatus
from fma_django.models.round import RoundState
from fma_django.rounds import publishing
from fma_django.rounds.aggregation import aggregate_round
from fma_django.rounds.verification import verify_round
from fma_django.storage import get_store
from fma_django.updates.facts import INITIAL
from tests.records import WEIGHTS, aggregate_now, make_client, make_model, send_update, weights
from tests.servers.s3 import S3Bucket

pytestmark = pytest.mark.django_db

pytest_plugins = ["tests.servers.plugin"]

STRATEGIES: Mapping[str, Mapping[str, Any]] = {
    "mean": {"aggregator": "mean"},
    "fedadam": {"aggregator": "mean", "optimiser": {"name": "fedadam"}},
    "krum": {"aggregator": "krum", "aggregator_params": {"f": 1}},
    "fedbuff": {"aggregator": "fedbuff", "staleness": {"name": "hinge", "b": 0}},
    "feddyn": {"aggregator": "feddyn"},
    "bucketing": {"aggregator": "median", "stages": [{"name": "bucketing", "size": 2}]},
}


def make(**options: Any) -> tuple[FederatedModel, list[Client]]:
    model = make_model(
        initial_model=WEIGHTS, requirement="require_x_updates", requirement_args=[5], **options
    )
    return model, [make_client(model).client for _ in range(5)]


def play(model: FederatedModel, people: list[Client], num_rounds: int) -> None:
    """Rounds in which each client has trained from an aggregate of its own age, as far as there are so many."""
    for number in range(num_rounds):
        aggregates: list[ModelAggregate | int] = [INITIAL, *model.aggregates.order_by("pk")]
        for place, client in enumerate(people):
            base = aggregates[max(0, len(aggregates) - 1 - place)]
            value = 1.7 * number + 0.3 * place**2
            send_update(model, client, weights(value), base_aggregate=base, num_examples=place + 1)
        aggregate_now(model)


@pytest.mark.parametrize("name", STRATEGIES)
def test_what_was_published_is_computed_again(name: str) -> None:
    model, people = make(**STRATEGIES[name])
    play(model, people, 3)
    for number in (1, 3):
        found = verify_round(model, number)
        assert found.is_equal
        assert (found.round_number, found.num_updates) == (number, 5)
        assert found.published_sha256 == model.rounds.get(number=number).aggregate.sha256
    assert verify_round(model).round_number == 3


@pytest.mark.parametrize("name", ["fedadam", "feddyn"])
def test_the_rules_and_clients_of_today_do_not_matter(name: str) -> None:
    model, people = make(**STRATEGIES[name])
    play(model, people, 2)
    change_federated_model(model, {"aggregator": "median", "optimiser": {"name": "sgd"}})
    make_client(model)
    revoke_client(people[0])
    found = verify_round(model, 2)
    assert found.is_equal
    assert found.published_state_sha256


def test_nothing_changes_by_it() -> None:
    model, people = make(**STRATEGIES["fedadam"])
    play(model, people, 2)
    before = sorted(blob.sha256 for blob in get_store().blobs())
    rows = list(Round.objects.order_by("pk").values())
    verify_round(model)
    assert sorted(blob.sha256 for blob in get_store().blobs()) == before
    assert list(Round.objects.order_by("pk").values()) == rows
    assert list(get_store().spool_dir().iterdir()) == []


def test_a_tampered_update_is_found_out() -> None:
    model, people = make(**STRATEGIES["mean"])
    play(model, people, 1)
    path = get_store().local_path(ModelUpdate.objects.latest("pk").sha256)
    assert path is not None
    stored = bytearray(path.read_bytes())
    stored[-2] ^= 1
    path.write_bytes(stored)
    with pytest.raises(NotVerifiable, match=r"update \d+ is no longer what it was when it was stored"):
        verify_round(model)


@pytest.mark.parametrize(
    ("which", "what"),
    [
        (lambda model: model.aggregates.latest("pk").sha256, "the published aggregate"),
        (lambda model: model.aggregates.latest("pk").state_sha256, "the state that was published"),
        (lambda model: model.artifacts.get().sha256, "the initial model"),
    ],
    ids=["aggregate", "state", "initial"],
)
def test_a_tampered_model_is_found_out(which: Callable[[FederatedModel], str], what: str) -> None:
    model, people = make(**STRATEGIES["fedadam"])
    play(model, people, 2)
    path = get_store().local_path(which(model))
    assert path is not None
    stored = bytearray(path.read_bytes())
    stored[-2] ^= 1
    path.write_bytes(stored)
    with pytest.raises(NotVerifiable, match=f"{what} is no longer what it was when it was stored"):
        verify_round(model)


def test_a_tampered_number_of_examples_is_found_out() -> None:
    model, people = make(**STRATEGIES["mean"])
    play(model, people, 1)
    ModelUpdate.objects.filter(client=people[0]).update(num_examples=77)
    assert not verify_round(model).is_equal


def test_a_round_of_an_older_arithmetic_is_equal_or_says_so() -> None:
    model, people = make(**STRATEGIES["mean"])
    play(model, people, 2)
    assert set(model.rounds.filter(state=RoundState.PUBLISHED).values_list("engine_version", flat=True)) == {
        ENGINE_VERSION
    }
    model.rounds.update(engine_version=ENGINE_VERSION - 1)
    assert verify_round(model, 1).is_equal
    ModelUpdate.objects.filter(client=people[0]).update(num_examples=77)
    with pytest.raises(
        NotVerifiable, match=r"was published by version \d of the arithmetic; this fma has version \d"
    ):
        verify_round(model, 1)


def test_updates_that_were_left_out_are_not_counted() -> None:
    model, people = make(aggregator="mean")
    change_federated_model(model, {"requirement_args": [2]})
    for place, client in enumerate(people[:3]):
        send_update(model, client, weights(place))
    collecting = model.rounds.get()
    get_store().delete(ModelUpdate.objects.get(client=people[1]).sha256)
    assert aggregate_round(collecting.pk) is not None
    found = verify_round(model)
    assert found.is_equal
    assert found.num_updates == 2


def test_a_round_whose_updates_are_gone_cannot_be_verified() -> None:
    model, people = make(aggregator="mean")
    play(model, people, 1)
    people[0].delete()
    with pytest.raises(NotVerifiable, match=r"made of 5 updates; 4 are still stored"):
        verify_round(model)


def publish(model: FederatedModel, people: list[Client]) -> None:
    play(model, people, 1)


def fail(model: FederatedModel, people: list[Client]) -> None:
    open_now = model.rounds.filter(state=RoundState.COLLECTING)
    open_now.update(state=RoundState.FAILED, failure_code="time_limit", closed_on=timezone.now())


def cancel(model: FederatedModel, people: list[Client]) -> None:
    publishing.cancel(model.rounds.get(state=RoundState.COLLECTING))


@pytest.mark.parametrize(
    ("prepare", "number", "what"),
    [
        (None, None, "has no published round"),
        (None, 1, "round 1 of model .* is collecting; only a published one"),
        (publish, 7, "has no round 7"),
        (fail, 1, "is failed"),
        (cancel, 1, "is cancelled"),
    ],
)
def test_what_was_not_published_cannot_be_verified(
    prepare: Callable[[FederatedModel, list[Client]], None] | None, number: int | None, what: str
) -> None:
    model, people = make(aggregator="mean")
    if prepare is not None:
        prepare(model, people)
    with pytest.raises(NotVerifiable, match=what):
        verify_round(model, number)


def test_a_round_of_an_earlier_version_cannot_be_verified() -> None:
    model, people = make(aggregator="mean")
    play(model, people, 1)
    Round.objects.filter(number=1).update(strategy=None, num_clients=None, start_sha256="")
    with pytest.raises(NotVerifiable, match="an earlier version of fma"):
        verify_round(model)


@pytest.mark.s3
def test_rounds_in_s3_are_folded_and_verified(s3_bucket: S3Bucket, settings: Any, tmp_path: Path) -> None:
    settings.FMA_STORAGE_URL = f"s3://{s3_bucket.name}/fma"
    settings.FMA_S3_ENDPOINT_URL = s3_bucket.server.endpoint_url
    settings.FMA_SPOOL_DIR = str(tmp_path)
    model, people = make(aggregator="fedbuff", optimiser={"name": "fedadam"})
    play(model, people, 3)
    assert verify_round(model).is_equal
    get_store().delete(model.model_updates.filter(status=UpdateStatus.COMPLETE).earliest("pk").sha256)
    with pytest.raises(NotVerifiable, match="not in the store"):
        verify_round(model, 1)
