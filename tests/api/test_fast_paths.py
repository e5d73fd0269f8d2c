"""The answers that go past DRF are those that DRF gives: facts of updates, shown updates, the newest weights."""

from collections.abc import Callable
from datetime import UTC
from typing import Any
from unittest.mock import patch
from urllib.parse import urlencode

import pytest
from django.http import HttpRequest
from django.test import RequestFactory, override_settings
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from rest_framework.request import Request
from rest_framework.serializers import ValidationError
from rest_framework.test import APIClient

from fma_api.front.responses import StoredFile
from fma_api.renderers import dumps
from fma_api.v1.models import views as model_views
from fma_api.v1.updates import facts
from fma_api.v1.updates.fast_path import shown
from fma_api.v1.updates.serializers import ClientModelUpdateSerializer, ModelUpdateSerializer
from fma_core.aggregation.aggregators.aggregator import MAX_NUM_EXAMPLES
from fma_core.arrays.codecs import json_bytes
from fma_django.models import ModelUpdate, Round, UpdateSignature
from fma_django.models.model_update import UpdateStatus
from tests.api.callers import API, SAFETENSORS, as_client, as_user, wait_of
from tests.records import WEIGHTS, make_aggregate, make_client, make_model

# Without shrinking, which takes minutes where an example takes a request.
QUICK = settings(
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
NUMBERS = st.integers(1, 9) | st.sampled_from(
    [0, -1, 2**31, MAX_NUM_EXAMPLES, MAX_NUM_EXAMPLES + 1, 2**63 - 1, 2**63, 10**17, 10**18 - 1, 10**18]
)
METRICS = st.dictionaries(st.sampled_from(["loss", "a/b", ""]), JSON, max_size=2)
UUIDS = st.uuids().map(str)


def fields(number: Any, anything: Any, metrics: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Facts that are right as often as not: so a fault is met alone, and not only beside others."""
    return st.fixed_dictionaries(
        {},
        optional={
            "federated_model": number | number | number | anything,
            "base_aggregate": number | number | anything,
            "num_examples": number | number | anything,
            "metrics": metrics | metrics | anything,
            "client": anything | UUIDS,
            "data": anything,
            "unknown": anything,
        },
    )


def outcome(read: Callable[[Any], facts.SentFacts], given_: Any) -> Any:
    """The facts with their types, or the refusal."""
    try:
        return repr(read(given_))
    except ValidationError as error:
        return error.detail, error.get_codes()


def outcome_of_serializers(read: Callable[[Any], facts.SentFacts], given_: Any) -> Any:
    with patch.object(facts, "_plain", lambda *_, **__: None):
        return outcome(read, given_)


@settings(QUICK, max_examples=150)
@given(fields(NUMBERS, JSON, METRICS) | JSON)
@example({"federated_model": 1, "data": 0})
@example({"federated_model": 1, "data": [1.5], "num_examples": None})
@example({"federated_model": True, "data": [1.5]})
@example({"federated_model": 1.0, "data": [1.5]})
@example({"federated_model": 1, "data": [1.5], "metrics": []})
@example({"federated_model": 1, "data": [1.5], "client": ""})
def test_facts_in_json_are_read_as_the_serializer_reads_them(body: Any) -> None:
    arrived = json_bytes.loads(dumps(body))

    assert outcome(facts.facts_in_json, arrived) == outcome_of_serializers(facts.facts_in_json, arrived)


TEXTS = (
    NUMBERS.map(str)
    | st.text(max_size=5)
    | st.sampled_from(["", " 1", "+1", "01", "1_0", "1.0", "١", "null"])
)
TEXTS_OF_METRICS = METRICS.map(lambda value: dumps(value).decode()) | st.sampled_from(
    [
        "{",
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": -Infinity}',
        "[" * 5000,
        '"\\ud800"',
        '{"a": %s}' % ("9" * 5000),
    ]
)


@settings(QUICK, max_examples=150)
@given(fields(NUMBERS.map(str), TEXTS, TEXTS_OF_METRICS), st.booleans())
@example({"federated_model": "1", "metrics": '{"loss": NaN}'}, False)
@example({"federated_model": "1", "metrics": ""}, False)
@example({"federated_model": "1", "client": ""}, False)
def test_facts_in_a_query_are_read_as_the_serializer_reads_them(said: dict[str, str], is_twice: bool) -> None:
    query = urlencode([*said.items(), *(said.items() if is_twice else ())], errors="surrogatepass")

    def request() -> HttpRequest:
        return RequestFactory().post(f"/?{query}")

    assert outcome(facts.facts_in_query, request()) == outcome_of_serializers(facts.facts_in_query, request())


IDS = st.integers(1, 10**18 - 1)  # as many digits as paths have
UNSIGNED_UPDATES = st.builds(
    ModelUpdate,
    pk=IDS,
    client_id=st.uuids(),
    federated_model_id=IDS,
    round=st.builds(Round, pk=IDS, number=st.integers(1, 2**31 - 1)),
    base_aggregate_id=st.none() | IDS,
    applied_aggregate_id=st.none() | IDS,
    num_examples=st.integers(1, MAX_NUM_EXAMPLES),
    metrics=METRICS,
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    size_bytes=st.integers(0, 2**62),
    status=st.sampled_from(UpdateStatus).map(int),
    status_reason=st.text(max_size=9),
    created_on=st.datetimes(timezones=st.just(UTC)),
)


def _signed(update: ModelUpdate, public_key: str | None) -> ModelUpdate:
    """The update with its signature, or without one, as a query that joins them leaves it."""
    update._state.fields_cache["signed"] = None
    if public_key is not None:
        UpdateSignature(update=update, public_key=public_key)
    return update


UPDATES = st.builds(
    _signed, UNSIGNED_UPDATES, st.none() | st.text("0123456789abcdef", min_size=64, max_size=64)
)


@settings(QUICK, max_examples=50)
@given(UPDATES, st.sampled_from(["localhost", "fma.example.org:8000", "[::1]"]), st.booleans())
@pytest.mark.parametrize(
    ("serializer", "to_client"), [(ClientModelUpdateSerializer, True), (ModelUpdateSerializer, False)]
)
def test_an_update_is_shown_as_the_serializer_shows_it(
    serializer: Any, to_client: bool, update: ModelUpdate, host: str, is_secure: bool
) -> None:
    request = RequestFactory().post("/", headers={"host": host}, secure=is_secure)

    with override_settings(ALLOWED_HOSTS=["*"]):
        at_once = dumps(shown(update, request, to_client=to_client))
        by_the_serializer = dumps(serializer(update, context={"request": Request(request)}).data)

    assert at_once == by_the_serializer


AFTER = st.sampled_from(["", "0", "1", "01", "-1", "x", "²", "999", str(10**18), str(2**63), str(2**64)])
WAIT = st.sampled_from(["", "0", "5", "1e9", "-1", "nan", "inf", "x", " 5", "1_0", "5" * 400, "0x5", "٥"])
QUERIES = st.fixed_dictionaries(
    {}, optional={"after": AFTER, "wait": WAIT, "format": st.just("json"), "x": st.just("")}
)
ACCEPTS = [SAFETENSORS, "*/*", "application/json", f"{SAFETENSORS}, */*", "text/html", ""]
HEADERS = (
    "Content-Type",
    "Content-Length",
    "ETag",
    "Cache-Control",
    "FMA-Aggregate",
    "Accept-Ranges",
    "WWW-Authenticate",
)


def answer_of(answer: Any) -> tuple[Any, ...]:
    body = b"".join(answer.streaming_content) if answer.streaming else answer.content
    headers = [answer.headers.get(name) for name in HEADERS]
    return answer.status_code, headers, body, wait_of(answer), isinstance(answer, StoredFile)


@pytest.mark.django_db
@pytest.mark.parametrize("kind", ["nothing", "artifact", "aggregate"])
def test_the_newest_weights_are_answered_as_the_view_answers_them(
    kind: str, alice: Any, anonymous: APIClient
) -> None:
    model = make_model(alice, initial_model=None if kind == "nothing" else WEIGHTS)
    ann = make_client(model)
    if kind == "aggregate":
        make_aggregate(model, ann.client)
    callers = [as_client(ann), as_client(make_client()), as_user(alice), anonymous]
    callers[0].get(f"{API}models/{model.pk}/get_latest_model/")

    @settings(QUICK, max_examples=40)
    @given(
        call=st.sampled_from(["get_latest_model", "get_latest_aggregate"]),
        caller=st.sampled_from([0, 0, 0, 1, 2, 3]).map(callers.__getitem__),
        query=QUERIES,
        accept=st.sampled_from(ACCEPTS) | st.just(SAFETENSORS),
        beside=st.sampled_from([{}, {}, {"range": "bytes=0-3"}, {"if-none-match": "*"}]),
        other_model=st.sampled_from([0, 0, 0, 10**6]),
    )
    def is_the_same(
        call: str, caller: APIClient, query: Any, accept: str, beside: Any, other_model: int
    ) -> None:
        url = f"{API}models/{model.pk + other_model}/{call}/"
        headers = {"accept": accept, **beside}

        at_once = answer_of(caller.get(url, query, headers=headers))
        with patch.multiple(model_views, latest_at_once=lambda *_: None, newer_at_once=lambda *_: None):
            by_the_view = answer_of(caller.get(url, query, headers=headers))

        assert at_once == by_the_view

    is_the_same()
