"""`GET models/<id>/rounds/<n>/selection/`: who was chosen, who was not, and why."""

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from fma_django.clients.joining import join
from fma_django.experiments.lifecycle import pause, start
from fma_django.models import FederatedModel, Tag
from tests.api.callers import API, as_client
from tests.records import WEIGHTS, make_client, make_model, send_update

pytestmark = [pytest.mark.django_db, pytest.mark.untraced]
ONE_WITH_TAG = {
    "selector": {"name": "random"},
    "eligibility": [{"name": "tags", "all_of": ["gpu"]}],
    "round_policy": {"goal": 1, "over_selection": 1},
}


@pytest.fixture
def model(alice: Any) -> FederatedModel:
    return make_model(alice, initial_model=WEIGHTS, allow_aggregation=False, **ONE_WITH_TAG)


def url_of(model: FederatedModel) -> str:
    return f"{API}models/{model.pk}/rounds/1/selection/"


def filled(model: FederatedModel, number: int = 3) -> Any:
    """So many clients, all but one of them eligible; the one that was chosen."""
    tag, _ = Tag.objects.get_or_create(name="gpu")
    for index in range(number):
        client = make_client(model).client
        if index:
            client.tags.add(tag)
    start(model)
    return model.rounds.get().participations.get(is_chosen=True).client


def test_the_owner_sees_all_and_why(owner: APIClient, model: FederatedModel) -> None:
    chosen = filled(model)

    said = owner.get(url_of(model)).json()

    assert (said["round"], said["everyone"], said["num_asked"]) == (1, False, 1)
    first, *others = said["clients"]
    assert (first["client"], first["is_chosen"], first["reason"]) == (str(chosen.pk), True, "")
    assert {each["reason"] for each in others} == {"tags", "not_chosen"}
    assert all(each["detail"] for each in others)


def test_it_says_who_joined_and_who_answered(owner: APIClient, model: FederatedModel) -> None:
    chosen = filled(model)
    before = owner.get(url_of(model)).json()["clients"][0]
    join(model, chosen)
    joined = owner.get(url_of(model)).json()["clients"][0]
    send_update(model, chosen)
    answered = owner.get(url_of(model)).json()["clients"][0]

    assert (before["joined_on"], before["answered_on"]) == (None, None)
    assert joined["joined_on"] is not None
    assert answered["answered_on"] > joined["joined_on"]
    assert answered["was_late"] is False


def test_a_client_sees_itself(model: FederatedModel) -> None:
    ann = make_client(model)
    filled(model)

    said = as_client(ann).get(url_of(model)).json()

    assert [each["client"] for each in said["clients"]] == [str(ann.client.pk)]
    assert said["clients"][0]["reason"] == "tags"


def test_where_everyone_may_answer_it_says_so(owner: APIClient, alice: Any) -> None:
    model = make_model(alice)
    ann = make_client(model).client
    join(model, ann)

    said = owner.get(url_of(model)).json()

    assert (said["everyone"], said["num_asked"]) == (True, None)
    assert [each["client"] for each in said["clients"]] == [str(ann.pk)]


def test_before_anybody_was_chosen_it_says_what_it_waits_for(owner: APIClient, model: FederatedModel) -> None:
    start(model)

    said = owner.get(url_of(model)).json()

    assert said == {
        "round": 1,
        "everyone": False,
        "num_asked": None,
        "waits_for": "clients to register: 0 of 1",
        "clients": [],
    }
    pause(model)


def test_it_comes_in_pages(owner: APIClient, model: FederatedModel) -> None:
    filled(model, 5)

    page = owner.get(url_of(model) + "?page_size=2")

    assert [each["is_chosen"] for each in page.json()["clients"]] == [True, False]
    assert 'rel="next"' in page.headers["Link"]


def test_many_rows_cost_no_more(owner: APIClient, alice: Any) -> None:
    def cost(number: int) -> int:
        model = make_model(alice, initial_model=WEIGHTS, allow_aggregation=False, **ONE_WITH_TAG)
        filled(model, number)
        with CaptureQueriesContext(connection) as captured:
            answer = owner.get(url_of(model))
        assert len(answer.json()["clients"]) == number
        return len(captured)

    assert cost(2) == cost(12) <= 7
