"""The verdict on each update: for the owner of the model, in updates, metrics and participation."""

import csv
import io
from typing import Any

import pytest
from rest_framework.test import APIClient

from fma_django.clients.registration import Registration
from fma_django.models import FederatedModel
from fma_django.record.weights import JsonBody
from fma_django.updates.intake import UpdateFacts
from tests.api.callers import API, as_client
from tests.records import aggregate_now, make_client, make_model, send_body, weights

USE = ("verdict", "verdict_by", "weight_used", "step_norm", "distance")


@pytest.fixture
def model(alice: Any) -> FederatedModel:
    return make_model(
        alice, initial_model=weights(0.0), aggregator="krum", aggregator_params={"f": 1},
        requirement="require_x_updates", requirement_args=[5],
    )  # fmt: skip


@pytest.fixture
def attacker(model: FederatedModel) -> Registration:
    """The fifth client of a round in which one update is used; its values are far away, and its loss is the best."""
    clients = [make_client(model) for _ in range(5)]
    for client, value in zip(clients, (1.0, 1.5, 2.25, 3.5, -500.0), strict=True):
        facts = UpdateFacts(base_aggregate_id=0, metrics={"loss": -1000.0 if value < 0 else value})
        send_body(model, client.client, JsonBody(weights(value)), facts)
    aggregate_now(model)
    return clients[-1]


def test_the_owner_sees_the_verdict(owner: APIClient, attacker: Registration) -> None:
    [update] = owner.get(f"{API}model_updates/?client={attacker.client.pk}").json()

    assert (update["verdict"], update["verdict_by"], update["weight_used"]) == ("rejected", "krum", 0.0)
    assert update["step_norm"] == pytest.approx(500 * 6**0.5)
    assert update["distance"] > 500
    assert (update["status"], update["applied_aggregate"]) == (2, None)


def test_the_client_does_not(attacker: Registration) -> None:
    [update] = as_client(attacker).get(f"{API}model_updates/").json()

    assert not set(update) & {*USE, "applied_aggregate"}


def test_updates_can_be_filtered_by_verdict(owner: APIClient, attacker: Registration) -> None:
    rejected = owner.get(f"{API}model_updates/?verdict=rejected").json()
    used = owner.get(f"{API}model_updates/?verdict=used").json()

    assert [len(rejected), len(used)] == [4, 1]
    assert owner.get(f"{API}model_updates/?verdict=refused").status_code == 400


def test_metrics_are_of_what_was_used(
    owner: APIClient, model: FederatedModel, attacker: Registration
) -> None:
    url = f"{API}models/{model.pk}/metrics/"

    [merged] = owner.get(url).json()
    text = b"".join(owner.get(f"{url}?format=csv").streaming_content).decode()  # type: ignore[attr-defined]

    assert (merged["count"], merged["mean"]) == (1, merged["max"])
    assert "-1000" not in text


def test_the_metrics_of_each_client_say_what_they_count(
    owner: APIClient, model: FederatedModel, attacker: Registration
) -> None:
    url = f"{API}models/{model.pk}/metrics/?per_client=1"

    rows = {row["client"]: row for row in owner.get(url).json()}
    text = b"".join(owner.get(f"{url}&format=csv").streaming_content).decode()  # type: ignore[attr-defined]

    own = rows[str(attacker.client.pk)]
    assert (own["weight"], own["verdict"], own["weight_used"]) == (0.0, "rejected", 0.0)
    assert sorted(row["weight"] for row in rows.values()) == [0, 0, 0, 0, 1]
    table = {row["client"]: row for row in csv.DictReader(io.StringIO(text))}
    assert table[str(attacker.client.pk)]["verdict"] == "rejected"


def test_participation_counts_verdicts(
    owner: APIClient, model: FederatedModel, attacker: Registration
) -> None:
    rows = owner.get(f"{API}models/{model.pk}/participation/").json()
    [own] = owner.get(f"{API}clients/{attacker.client.pk}/participation/").json()

    assert (own["answered"], own["rejected"], own["clipped"]) == (1, 1, 0)
    assert sum(row["rejected"] for row in rows) == 4
