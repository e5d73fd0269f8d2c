"""Lists are bare arrays, newest first, in pages whose neighbours stand in a `Link` header."""

import re
from collections.abc import Iterable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from fma_django.clients.registration import Registration
from fma_django.models import FederatedModel
from tests.api.callers import API
from tests.records import make_aggregate, make_client, make_model, make_score, send_update

pytestmark = [pytest.mark.django_db, pytest.mark.untraced]
LISTS = ("models", "model_updates", "model_aggregates", "model_artifacts", "client_aggregate_scores")


def ids(rows: Iterable[dict[str, Any]]) -> list[int]:
    return [row["id"] for row in rows]


def links(answer: Any) -> dict[str, str]:
    return {name: url for url, name in re.findall(r'<([^>]+)>; rel="(\w+)"', answer.headers.get("Link", ""))}


@pytest.fixture
def three_aggregates(model: FederatedModel, ann: Registration) -> list[int]:
    """Newest first, each with a score."""
    made = [make_aggregate(model, ann.client, value=value) for value in (1.0, 2.0, 3.0)]
    for aggregate in made:
        make_score(aggregate, ann.client)
    return [aggregate.pk for aggregate in reversed(made)]


@pytest.mark.parametrize("name", LISTS)
def test_an_empty_list_is_an_empty_array_without_links(owner: APIClient, name: str) -> None:
    answer = owner.get(f"{API}{name}/")

    assert (answer.status_code, answer.json()) == (200, [])
    assert "Link" not in answer.headers


@pytest.mark.parametrize("name", ["model_updates", "model_aggregates", "client_aggregate_scores"])
def test_lists_are_newest_first_and_can_be_turned(
    owner: APIClient, three_aggregates: list[int], name: str
) -> None:
    newest_first = ids(owner.get(f"{API}{name}/").json())

    assert newest_first == sorted(newest_first, reverse=True)
    assert len(newest_first) == 3
    assert ids(owner.get(f"{API}{name}/", {"ordering": "created_on"}).json()) == newest_first[::-1]
    assert ids(owner.get(f"{API}{name}/", {"ordering": "-created_on"}).json()) == newest_first


def test_the_link_header_leads_through_the_pages(owner: APIClient, three_aggregates: list[int]) -> None:
    first = owner.get(f"{API}model_aggregates/", {"page_size": 1})
    second = owner.get(links(first)["next"])
    third = owner.get(links(second)["next"])

    assert [row for it in (first, second, third) for row in ids(it.json())] == three_aggregates
    assert links(first).keys() == {"next"}
    assert links(second).keys() == {"next", "prev"}
    assert links(third).keys() == {"prev"}
    assert owner.get(links(third)["prev"]).json() == second.json()


def test_filters_stay_in_the_links(owner: APIClient, model: FederatedModel, three_aggregates: Any) -> None:
    first = owner.get(f"{API}model_aggregates/", {"page_size": 2, "federated_model": model.pk})

    assert f"federated_model={model.pk}" in links(first)["next"]


def test_a_page_holds_ten_rows_and_a_hundred_models(owner: APIClient, alice: Any, model: Any) -> None:
    for _ in range(11):
        make_model(alice)
        send_update(model, make_client(model).client)

    assert len(owner.get(f"{API}model_updates/").json()) == 10
    assert len(owner.get(f"{API}model_updates/", {"page_size": 11}).json()) == 11
    assert len(owner.get(f"{API}models/").json()) == 12


@pytest.mark.parametrize("page", ["0", "3", "last-but-one", "-1"])
def test_a_page_that_is_not_there_is_404(owner: APIClient, model: FederatedModel, page: str) -> None:
    assert owner.get(f"{API}models/", {"page": page}).status_code == 404


def test_the_last_page_can_be_asked_for(owner: APIClient, three_aggregates: list[int]) -> None:
    last = owner.get(f"{API}model_aggregates/", {"page_size": 2, "page": "last"})

    assert ids(last.json()) == three_aggregates[2:]
    assert links(last).keys() == {"prev"}


@pytest.mark.parametrize("page", ["9" * 15, "9" * 40, "9" * 5000])
def test_no_page_is_too_far_to_say_that_it_is_not_there(
    owner: APIClient, model: FederatedModel, page: str
) -> None:
    assert owner.get(f"{API}models/", {"page": page}).status_code == 404


@pytest.mark.parametrize("name", LISTS)
def test_nobody_counts_what_is_not_shown(owner: APIClient, three_aggregates: list[int], name: str) -> None:
    with CaptureQueriesContext(connection) as captured:
        assert owner.get(f"{API}{name}/", {"page_size": 2}).status_code == 200

    statements = [query["sql"] for query in captured]
    assert any("LIMIT 3" in statement for statement in statements)
    assert not any("COUNT(" in statement for statement in statements)


def test_lists_filter_by_model(owner: APIClient, alice: Any, three_aggregates: list[int]) -> None:
    other = make_model(alice, initial_model=[1.0])
    for name in ("model_updates", "model_aggregates", "model_artifacts"):
        rows = owner.get(f"{API}{name}/", {"federated_model": other.pk}).json()
        assert {row["federated_model"] for row in rows} <= {other.pk}
        assert len(rows) == (1 if name == "model_artifacts" else 0)


def test_updates_filter_by_status(owner: APIClient, model: FederatedModel, ann: Registration) -> None:
    make_aggregate(model, ann.client)
    pending = send_update(model, ann.client)

    assert ids(owner.get(f"{API}model_updates/", {"status": 0}).json()) == [pending.pk]
    assert len(owner.get(f"{API}model_updates/", {"status": 2}).json()) == 1
    assert owner.get(f"{API}model_updates/", {"status": 7}).status_code == 400


def test_scores_filter_by_aggregate_and_client(
    owner: APIClient, ann: Registration, three_aggregates: list[int]
) -> None:
    url = f"{API}client_aggregate_scores/"

    assert [row["aggregate"] for row in owner.get(url, {"aggregate": three_aggregates[1]}).json()] == [
        three_aggregates[1]
    ]
    assert len(owner.get(url, {"client": str(ann.client.pk)}).json()) == 3
    assert owner.get(url, {"client": str(make_client().client.pk)}).json() == []
    assert owner.get(url, {"client": "ann"}).status_code == 400


def test_artifacts_filter_by_version(owner: APIClient, alice: Any) -> None:
    model = make_model(alice, initial_model=[1.0])

    assert len(owner.get(f"{API}model_artifacts/", {"version": "1.0.0"}).json()) == 1
    assert owner.get(f"{API}model_artifacts/", {"version": "9"}).json() == []
    assert model.pk


def test_aggregates_order_by_score_with_the_unscored_last(
    owner: APIClient, three_aggregates: list[int]
) -> None:
    newest, middle, oldest = three_aggregates
    for pk, score in ((middle, 0.5), (oldest, 0.9)):
        owner.patch(f"{API}model_aggregates/{pk}/", {"validation_score": score})

    def ordered(by: str) -> list[int]:
        return ids(owner.get(f"{API}model_aggregates/", {"ordering": by}).json())

    assert ordered("-validation_score") == [oldest, middle, newest]
    assert ordered("validation_score") == [middle, oldest, newest]


@pytest.mark.parametrize("name", ["model_updates", "model_aggregates", "model_artifacts"])
def test_a_filter_tells_nothing_of_models_that_are_not_the_callers(owner: APIClient, name: str) -> None:
    theirs = make_model(initial_model=[1.0])
    url = f"{API}{name}/"

    existing = owner.get(url, {"federated_model": theirs.pk})
    missing = owner.get(url, {"federated_model": theirs.pk + 1})

    assert (existing.status_code, existing.json()) == (missing.status_code, missing.json()) == (200, [])


@pytest.mark.parametrize("wrong", ["x", "1.5", str(2**63), "9" * 5000, "\x00"])
def test_a_filter_that_is_no_id_is_400(owner: APIClient, wrong: str) -> None:
    answer = owner.get(f"{API}model_updates/", {"federated_model": wrong})

    assert answer.status_code == 400
    assert answer.json()["federated_model"]


def test_rounds_come_in_pages_too(owner: APIClient, model: FederatedModel, three_aggregates: Any) -> None:
    first = owner.get(f"{API}models/{model.pk}/rounds/", {"page_size": 2})

    assert [row["number"] for row in first.json()] == [4, 3]
    assert [row["number"] for row in owner.get(links(first)["next"]).json()] == [2, 1]
