"""Metrics, round after round, as JSON and as CSV."""

import csv
import io
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from fma_core.metrics import STATISTICS
from fma_django.clients.registration import Registration
from fma_django.evaluations.scores import receive_score, score_aggregate
from fma_django.models import FederatedModel, ModelAggregate, ModelUpdate
from fma_django.record.weights import JsonBody
from fma_django.updates.intake import UpdateFacts
from tests.api.callers import API
from tests.records import aggregate_now, make_client, make_model, send_body, weights


@pytest.fixture
def model(alice: Any) -> FederatedModel:
    return make_model(alice, initial_model=weights(), requirement="require_x_updates", requirement_args=[2])


@pytest.fixture
def ben(model: FederatedModel) -> Registration:
    return make_client(model)


@pytest.fixture
def metrics(model: FederatedModel) -> str:
    return f"{API}models/{model.pk}/metrics/"


def send(model: FederatedModel, client: Registration, num_examples: int, **said: Any) -> ModelUpdate:
    current = FederatedModel.objects.get(pk=model.pk)
    facts = UpdateFacts(num_examples=num_examples, metrics=said)
    return send_body(current, client.client, JsonBody(weights()), facts)


def run_round(
    model: FederatedModel, ann: Registration, ben: Registration, loss: float = 0.5
) -> ModelAggregate:
    send(model, ann, 300, loss=loss, eval={"f1": 0.9}, note="x")
    send(model, ben, 100, loss=loss + 0.2)
    return aggregate_now(model)


def rows_of(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.content
    found: list[dict[str, Any]] = answer.json()
    return found


def table_of(answer: Any) -> list[dict[str, str]]:
    assert answer.status_code == 200
    text = b"".join(answer.streaming_content).decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_training_metrics_are_merged_by_examples(
    owner: APIClient, model: FederatedModel, ann: Registration, ben: Registration, metrics: str
) -> None:
    aggregate = run_round(model, ann, ben)

    f1, loss = rows_of(owner.get(metrics))

    assert (f1["metric"], f1["count"], f1["weight"]) == ("eval.f1", 1, 300)
    assert (loss["source"], loss["round"], loss["aggregate"]) == ("training", 1, aggregate.pk)
    assert loss["mean"] == pytest.approx(0.55)
    assert (loss["min"], loss["max"], loss["count"]) == (0.5, 0.7, 2)


def test_scores_are_merged_and_weighted_where_all_say_by_what(
    owner: APIClient, model: FederatedModel, ann: Registration, ben: Registration, metrics: str
) -> None:
    first = run_round(model, ann, ben)
    receive_score(first, ann.client, {"f1": 0.5, "num_examples": 30})
    receive_score(first, ben.client, {"f1": 1.0, "num_examples": 10})
    second = run_round(model, ann, ben)
    receive_score(second, ann.client, {"f1": 0.5, "num_examples": 30})
    receive_score(second, ben.client, {"f1": 1.0})
    score_aggregate(second, 0.875)

    rows = rows_of(owner.get(metrics, {"source": "validation"}))

    assert [(row["round"], row["metric"], row["mean"], row["weight"]) for row in rows] == [
        (1, "f1", 0.625, 40),
        (2, "f1", 0.75, 2),
    ]
    (own,) = rows_of(owner.get(metrics, {"source": "developer"}))
    assert (own["round"], own["metric"], own["mean"]) == (2, "validation_score", 0.875)


def test_no_client_can_make_the_metrics_unreadable_by_its_weight(
    owner: APIClient, model: FederatedModel, ann: Registration, ben: Registration, metrics: str
) -> None:
    aggregate = run_round(model, ann, ben)
    for client in (ann, ben):
        receive_score(aggregate, client.client, {"f1": 0.5, "num_examples": 1e308})
    (row,) = rows_of(owner.get(metrics, {"source": "validation"}))
    assert (row["mean"], row["weight"]) == (0.5, 2.0**54)


def test_metrics_of_single_clients(
    owner: APIClient, model: FederatedModel, ann: Registration, ben: Registration, metrics: str
) -> None:
    aggregate = run_round(model, ann, ben)
    receive_score(aggregate, ben.client, {"f1": 1.0})

    rows = rows_of(owner.get(metrics, {"per_client": "1"}))

    assert [(row["source"], row["client"], row["metric"], row["value"], row["weight"]) for row in rows] == [
        ("training", str(ann.client.pk), "eval.f1", 0.9, 300),
        ("training", str(ann.client.pk), "loss", 0.5, 300),
        ("training", str(ben.client.pk), "loss", 0.7, 100),
        ("validation", str(ben.client.pk), "f1", 1.0, 1),
    ]


def test_rounds_and_metrics_are_chosen(
    owner: APIClient, model: FederatedModel, ann: Registration, ben: Registration, metrics: str
) -> None:
    for loss in (0.5, 0.25, 0.125):
        run_round(model, ann, ben, loss)

    query = {"metric": "loss", "first_round": 2, "last_round": 2}
    assert [row["min"] for row in rows_of(owner.get(metrics, query))] == [0.25]
    first = owner.get(metrics, {"metric": "loss", "page_size": 2})
    assert [row["round"] for row in rows_of(first)] == [1, 2]
    assert 'rel="next"' in first["Link"]


@pytest.mark.parametrize("query", [{"source": "x"}, {"first_round": -1}, {"per_client": "x"}], ids=str)
def test_questions_that_cannot_be_are_refused(owner: APIClient, metrics: str, query: dict[str, str]) -> None:
    assert owner.get(metrics, query).status_code == 400


@pytest.mark.parametrize(("query", "accept"), [({"format": "csv"}, "*/*"), ({}, "text/csv")])
def test_csv_says_the_same(
    owner: APIClient,
    model: FederatedModel,
    ann: Registration,
    ben: Registration,
    metrics: str,
    query: dict[str, str],
    accept: str,
) -> None:
    for loss in (0.5, 0.25):
        run_round(model, ann, ben, loss)

    answer = owner.get(metrics, query, headers={"accept": accept})

    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    table, rows = table_of(answer), rows_of(owner.get(metrics))
    assert [row["metric"] for row in table] == [row["metric"] for row in rows]
    assert [[float(row[name]) for name in STATISTICS] for row in table] == [
        [row[name] for name in STATISTICS] for row in rows
    ]
    of_clients = owner.get(metrics, {**query, "per_client": "1"}, headers={"accept": accept})
    assert len(table_of(of_clients)) == 6


def test_names_that_look_like_formulas_are_harmless_in_spreadsheets(
    owner: APIClient, model: FederatedModel, ann: Registration, ben: Registration, metrics: str
) -> None:
    for client in (ann, ben):
        send(model, client, 1, **{"=HYPERLINK(1)": 1.0})
    aggregate_now(model)

    (row,) = table_of(owner.get(metrics, {"format": "csv"}))

    assert row["metric"] == "'=HYPERLINK(1)"


def test_problems_are_json_also_for_who_wants_csv(owner: APIClient, metrics: str) -> None:
    answer = owner.get(metrics, {"format": "csv", "source": "x"})

    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")


def test_model_without_rounds_has_an_empty_table(owner: APIClient, metrics: str) -> None:
    assert rows_of(owner.get(metrics)) == []
    assert table_of(owner.get(metrics, {"format": "csv"})) == []


def test_metrics_take_a_constant_number_of_queries(
    owner: APIClient, model: FederatedModel, ann: Registration, ben: Registration, metrics: str
) -> None:
    def cost(query: dict[str, str]) -> int:
        with CaptureQueriesContext(connection) as captured:
            rows_of(owner.get(metrics, query))
        return len(captured)

    queries: list[dict[str, str]] = [{}, {"per_client": "1"}]
    run_round(model, ann, ben)
    before = [cost(query) for query in queries]
    for _ in range(4):
        receive_score(run_round(model, ann, ben), ann.client, {"f1": 1.0})

    assert [cost(query) for query in queries] == before
    assert max(before) <= 6


@pytest.mark.parametrize(
    "name",
    [
        "=1",
        "+1",
        "-1",
        "@x",
        "\t=1",
        "\r=1",
        "\n=1",
        " =1",
        "\u3000=1",
        "＝1",
        "＋1",
        "－1",
        "＠x",
        "−1",
        "\u200b=1",
    ],
)
def test_no_name_of_a_metric_is_a_formula(
    owner: APIClient, model: FederatedModel, ann: Registration, ben: Registration, metrics: str, name: str
) -> None:
    send(model, ann, 1, **{name: 1.0})
    send(model, ben, 1, loss=1.0)
    aggregate_now(model)
    for per_client in ("false", "true"):
        rows = table_of(owner.get(f"{metrics}?format=csv&per_client={per_client}"))
        assert f"'{name}" in [row["metric"] for row in rows]
        assert "loss" in [row["metric"] for row in rows]
