"""Lists cost a constant number of queries, as many for thirty rows as for two; and so does each update."""

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from fma_core.arrays.codecs.safetensors import encode
from fma_django.models import FederatedModel
from tests.api.callers import API, SAFETENSORS, as_client, as_user
from tests.records import (
    WEIGHTS,
    aggregate_now,
    arrays,
    make_client,
    make_model,
    make_score,
    make_user,
    send_update,
)

pytestmark = pytest.mark.django_db


def queries(caller: APIClient, url: str) -> int:
    caller.get(url)  # once for what is cached
    with CaptureQueriesContext(connection) as captured:
        answer = caller.get(url, {"page_size": 200})
    assert answer.status_code == 200
    return len(captured)


@pytest.fixture
def alice(db: None) -> Any:
    return make_user("alice")


def grow(alice: Any, number: int) -> FederatedModel:
    """One round with this many updates, each of a client of its own, an aggregate scored by each; as many models."""
    model = make_model(
        alice, initial_model=WEIGHTS, requirement="require_x_updates", requirement_args=[number]
    )
    clients = [make_client(model).client for _ in range(number)]
    for client in clients:
        send_update(model, client)
    aggregate = aggregate_now(model)
    for client in clients:
        make_score(aggregate, client)
    for _ in range(number):
        make_client(make_model(alice, initial_model=WEIGHTS))
    return model


@pytest.mark.slow
def test_lists_take_as_many_queries_for_thirty_rows_as_for_two(owner: APIClient, alice: Any) -> None:
    paths = [
        f"{API}{kind}/"
        for kind in (
            "models",
            "model_updates",
            "model_aggregates",
            "model_artifacts",
            "client_aggregate_scores",
        )
    ]
    small = grow(alice, 2)
    before = {path: queries(owner, path) for path in paths}
    before["rounds"] = queries(owner, f"{API}models/{small.pk}/rounds/")

    large = grow(alice, 30)

    after = {path: queries(owner, path) for path in paths}
    after["rounds"] = queries(owner, f"{API}models/{large.pk}/rounds/")
    assert after == before
    assert max(after.values()) <= 6


def test_creating_a_model_with_many_clients_looks_them_up_at_once(alice: Any) -> None:
    caller = as_user(alice)
    own = make_model(alice)
    caller.get(f"{API}me/")  # notes the use of the token

    def cost(count: int) -> int:
        ids = [str(make_client(own).client.pk) for _ in range(count)]
        with CaptureQueriesContext(connection) as captured:
            answer = caller.post(f"{API}models/", {"name": "m", "aggregator": "mean", "clients": ids})
        assert sorted(answer.json()["clients"]) == sorted(ids)
        return len(captured)

    assert cost(2) == cost(30)


PREPARED = {
    "fma_standing_by_credential": "SELECT",
    "fma_standing_by_id": "SELECT",
    "fma_standing_by_id_and_key": "SELECT",
    "fma_count_one": "UPDATE",
    "fma_insert_update": "INSERT",
    "fma_remember": "INSERT",
}


def statements(caller: APIClient, model: FederatedModel, value: float, **headers: str) -> list[str]:
    """The statements of an accepted update, in a round that stays open."""
    body = encode(arrays(value))
    url = f"{API}model_updates/?federated_model={model.pk}&num_examples=3"
    with CaptureQueriesContext(connection) as captured:
        answer = caller.generic("POST", url, body, SAFETENSORS, **headers)
    assert answer.status_code == 201, answer.content
    return kinds(captured)


def kinds(captured: CaptureQueriesContext) -> list[str]:
    # The transaction is a savepoint here, inside that of the test.
    sent = [query["sql"].split() for query in captured.captured_queries if "SAVEPOINT" not in query["sql"]]
    return [PREPARED[words[1]] if words[0] == "EXECUTE" else words[0] for words in sent]


@pytest.mark.parametrize(
    ("requirement", "args", "counting"),
    [
        ("require_x_updates", [50], []),
        # Its round started with one client: when one has answered, they are counted again.
        ("all_clients", [], ["SELECT", "SELECT", "UPDATE"]),
    ],
)
def test_an_update_takes_one_read_before_its_body_and_three_statements_after(
    alice: Any, requirement: str, args: list[int], counting: list[str]
) -> None:
    other = make_model(alice, initial_model=WEIGHTS, requirement="require_x_updates", requirement_args=[50])
    statements(as_client(make_client(other)), other, 1.0)  # a connection prepares a statement once
    model = make_model(alice, initial_model=WEIGHTS, requirement=requirement, requirement_args=args)
    callers = [as_client(make_client(model)) for _ in range(13)]

    first = statements(callers[0], model, 1.0)
    few = statements(callers[2], model, 1.0)
    for caller in callers[3:9]:
        statements(caller, model, 1.0)
    many = statements(callers[9], model, 1.0)

    assert few == many == ["SELECT", "UPDATE", "SELECT", "INSERT"]
    assert first == [*few, *counting]
    statements(callers[10], model, 1.0, HTTP_IDEMPOTENCY_KEY="k")  # prepares its statements
    with_key = statements(callers[11], model, 1.0, HTTP_IDEMPOTENCY_KEY="k")
    assert with_key == ["SELECT", "UPDATE", "SELECT", "INSERT", "INSERT"]


def test_a_json_update_takes_no_more(alice: Any) -> None:
    model = make_model(alice, initial_model=WEIGHTS, requirement="require_x_updates", requirement_args=[50])
    callers = [as_client(make_client(model)) for _ in range(2)]
    said = {"federated_model": model.pk, "data": WEIGHTS}
    callers[0].post(f"{API}model_updates/", said)

    with CaptureQueriesContext(connection) as captured:
        assert callers[1].post(f"{API}model_updates/", said).status_code == 201

    assert kinds(captured) == ["SELECT", "UPDATE", "SELECT", "INSERT"]
