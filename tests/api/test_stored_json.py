"""Every JSON that is accepted can be read back equal: by the API, as CSV and in the admin, on every database."""

import csv
import io
import json
from typing import Any

import orjson
import pytest
from django.apps import apps
from django.db.models import JSONField
from django.test import Client as Browser
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from rest_framework.test import APIClient

from fma_django.models import FederatedModel, ModelAggregate
from fma_django.models.stored_json import StoredJson
from tests.api.callers import API, as_client
from tests.records import WEIGHTS, aggregate_now, make_aggregate, make_client, make_model, make_user

pytestmark = pytest.mark.django_db
QUICK = settings(
    deadline=None,
    database=None,
    max_examples=6,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
LARGE = st.sampled_from([1e16, 1e20, -1e20, 1e23, 2.0**64, -(2.0**63), 1e300, 1.7e308, 5e-324, -0.0])
NUMBERS = FLOATS | LARGE | st.integers(-(2**65), 2**66)
NAMES = st.text(max_size=4) | st.sampled_from(["loss", "ſ", "\x00", "=1", "\n"])
JSON = st.recursive(
    NUMBERS | NUMBERS | st.none() | st.booleans() | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(NAMES, JSON, max_size=3)

# By column of a model, a value around any JSON or any number that its rules may let in.
OF_MODELS: dict[str, Any] = {
    "aggregator_params": lambda number, _: {"max_norm": number},
    "stages": lambda number, _: [{"name": "clip_norm", "max_norm": number}],
    "optimiser": lambda number, _: {"name": "sgd", "learning_rate": number},
    "staleness": lambda number, _: {"name": "polynomial", "a": number},
    "array_policies": lambda _, value: {str(value)[:20]: "kept"},
    "requirement_args": lambda number, _: [number],
    "round_policy": lambda number, _: {
        "goal": 2,
        "min_improvement": number,
        "metric": "loss",
        "target": number,
    },
    "selector": lambda number, _: {"name": "random", "fraction": number},
    "eligibility": lambda number, _: [{"name": "speed", "max_ping_ms": number}],
    "client_config": lambda number, value: {"rate": number, "any": value},
    "client_config_overrides": lambda number, value: [
        {"tags": ["gpu"], "set": {"rate": number, "any": value}}
    ],
    "client_config_schema": lambda number, value: {"examples": [number, value]},
    "update_schema": lambda number, value: {"examples": [number, value]},
    "client_agg_results_schema": lambda number, value: {"examples": [number, value]},
    "spec": lambda number, _: {"w": {"shape": [number], "dtype": "float32"}},
}


def sent(value: Any) -> Any:
    """The JSON value as the server's parser reads it: integers beyond 64 bits are floats."""
    return orjson.loads(json.dumps(value))


def page_of(caller: APIClient | Browser, path: str) -> Any:
    answer = caller.get(path)
    assert answer.status_code == 200, (path, answer.status_code, answer.content[:300])
    return answer


def post(caller: APIClient, path: str, body: Any, method: str = "POST") -> Any:
    """The members of what was made; None when it was refused."""
    answer = caller.generic(method, path, json.dumps(body), "application/json")
    assert answer.status_code < 500, answer.content
    return answer.json() if answer.status_code in (200, 201) else None


@pytest.fixture
def staff() -> Browser:
    user = make_user("staff", staff=True)
    user.is_superuser = True
    user.save()
    browser = Browser()
    browser.force_login(user)
    return browser


@settings(QUICK, max_examples=20)
@given(metrics=OBJECTS)
@example(metrics={"loss": 1e20})
@example(metrics={"loss": 1e23, "deep": {"of": [1e300, -1e19]}})
def test_metrics_of_updates_are_read_back_equal(
    owner: APIClient, staff: Browser, alice: Any, metrics: dict[str, Any]
) -> None:
    model = make_model(alice, initial_model=WEIGHTS, requirement="require_x_updates", requirement_args=[1])
    device = as_client(make_client(model))
    body = {"federated_model": model.pk, "data": WEIGHTS, "metrics": metrics}

    made = post(device, f"{API}model_updates/", body)

    listed = page_of(owner, f"{API}model_updates/?federated_model={model.pk}").json()
    if made is None:
        assert listed == []
        return
    assert made["metrics"] == listed[0]["metrics"] == sent(metrics)
    # The same update again is the same row, and no second one.
    assert post(device, f"{API}model_updates/", body)["id"] == made["id"]
    page_of(staff, f"/admin/fma_django/modelupdate/{made['id']}/change/")
    aggregate_now(model)
    of_rounds = page_of(owner, f"{API}models/{model.pk}/metrics/?per_client=true").json()
    as_csv = page_of(owner, f"{API}models/{model.pk}/metrics/?per_client=true&format=csv")
    table = b"".join(as_csv.streaming_content)
    rows = list(csv.DictReader(io.StringIO(table.decode(), newline="")))
    assert [float(row["value"]) for row in rows] == [row["value"] for row in of_rounds]
    page_of(owner, f"{API}models/{model.pk}/rounds/")
    page_of(owner, f"{API}models/{model.pk}/metrics/")
    page_of(staff, f"/admin/fma_django/federatedmodel/{model.pk}/change/")


@QUICK
@given(results=OBJECTS)
@example(results={"loss": 1e20})
def test_scores_are_read_back_equal(
    owner: APIClient, staff: Browser, alice: Any, results: dict[str, Any]
) -> None:
    model = make_model(alice)
    aggregate: ModelAggregate = make_aggregate(model)
    device = as_client(make_client(model))

    made = post(
        device, f"{API}client_aggregate_scores/", {"aggregate": aggregate.pk, "validation_results": results}
    )

    listed = page_of(owner, f"{API}client_aggregate_scores/?aggregate={aggregate.pk}").json()
    if made is not None:
        assert made["validation_results"] == listed[0]["validation_results"] == sent(results)
        page_of(staff, f"/admin/fma_django/clientaggregatescore/{made['id']}/change/")
        page_of(owner, f"{API}models/{model.pk}/metrics/?per_client=true&source=validation")


@pytest.mark.slow
@pytest.mark.parametrize("column", OF_MODELS)
@QUICK
@given(number=NUMBERS, value=JSON)
@example(number=1e20, value=1e23)
@example(number=4.734816509414069e16, value=2**60 + 1)
@example(number=1.0, value={"a": 1e20})
def test_columns_of_models_are_read_back_equal(
    owner: APIClient, staff: Browser, column: str, number: Any, value: Any
) -> None:
    said = {"name": "m", "aggregator": "mean", column: OF_MODELS[column](number, value)}
    if column == "aggregator_params":
        said["aggregator"] = "norm_bounded_mean"

    made = post(owner, f"{API}models/", said)

    page_of(owner, f"{API}models/")
    if made is None:
        return
    read = page_of(owner, f"{API}models/{made['id']}/").json()
    assert made[column] == read[column]
    if column in {"client_config", "client_config_overrides"} or column.endswith("_schema"):
        assert read[column] == sent(said[column])
    model = FederatedModel.objects.get(pk=made["id"])
    device = as_client(make_client(model))
    assert device.get(f"{API}models/{model.pk}/rounds/1/").status_code < 500
    page_of(owner, f"{API}models/{model.pk}/history/")
    page_of(staff, f"/admin/fma_django/federatedmodel/{model.pk}/change/")
    page_of(staff, f"/admin/fma_django/configversion/{model.config_versions.get().pk}/change/")


def test_every_json_column_reads_numbers_as_they_were_sent() -> None:
    columns = [
        field
        for model in apps.get_app_config("fma_django").get_models()
        for field in model._meta.concrete_fields
        if isinstance(field, JSONField)
    ]
    assert len(columns) > 15
    assert all(isinstance(field, StoredJson) for field in columns)
