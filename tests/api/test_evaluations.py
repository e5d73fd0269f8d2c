"""Evaluations over HTTP: who sees what of them, and what is said no to."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from fma_core.arrays.codecs.safetensors import decode, encode
from fma_django.clients.registration import Registration
from fma_django.evaluations.ends import close_evaluation
from fma_django.evaluations.opening import Chosen
from fma_django.models import EvaluationResult, EvaluationRound, FederatedModel, Organisation
from tests.api.callers import API, SAFETENSORS, as_client, as_user, stored_files, wait_of
from tests.evaluations import BINARY, answer, counted, make_member, open_to
from tests.records import WEIGHTS, arrays, make_client, make_model, make_user, weights

pytestmark = [pytest.mark.django_db, pytest.mark.untraced]
EVALUATIONS = f"{API}evaluations/"
HOSPITALS = ("north", "east", "south")


@pytest.fixture
def model(alice: Any) -> FederatedModel:
    return make_model(alice, initial_model=WEIGHTS)


@pytest.fixture
def clients(model: FederatedModel) -> dict[str, Registration]:
    """One of each hospital."""
    return {name: make_member(name, model) for name in HOSPITALS}


@pytest.fixture
def evaluation(model: FederatedModel, clients: dict[str, Registration]) -> EvaluationRound:
    return open_to(model, name="spring")


@pytest.fixture
def shown(evaluation: EvaluationRound, clients: dict[str, Registration]) -> EvaluationRound:
    """Everyone has answered."""
    for hits, registration in enumerate(clients.values(), start=1):
        answer(evaluation, registration.client, hits=hits, misses=1)
    return evaluation


def member_of(name: str) -> User:
    user = make_user()
    Organisation.objects.get(name=name).members.add(user)
    return user


def read(caller: APIClient, url: str) -> Any:
    answered = caller.get(url)
    assert answer_is_fine(answered), answered.content
    return answered.json()


def answer_is_fine(answered: Any) -> bool:
    return bool(answered.status_code in (200, 201))


def test_developer_asks_clients_answer_and_all_read_the_same_metrics(
    owner: APIClient, model: FederatedModel, clients: dict[str, Registration]
) -> None:
    body = {"question": {**BINARY, "bins": 4}, "artifact": model.current_artifact_id, "name": "spring"}
    opened = owner.post(f"{API}models/{model.pk}/evaluations/", body)
    assert opened.status_code == 201, opened.json()
    url = f"{EVALUATIONS}{opened.json()['id']}/"

    for registration in clients.values():
        device = as_client(registration)
        (waiting,) = read(device, EVALUATIONS)
        assert decode(device.get(waiting["model"], headers={"accept": SAFETENSORS}).getvalue())
        sent = {
            "question": waiting["question"],
            "confusion": [[1, 0], [1, 2]],
            "positives": [[0, 1, 0, 2, 0]],
            "negatives": [[0, 1, 0, 0, 0]],
        }
        stored = device.post(f"{url}results/", {"statistics": sent})
        assert stored.status_code == 201, stored.json()
        assert stored.json()["metrics"]["accuracy"] == 0.75
        assert read(device, EVALUATIONS) == []

    found = read(owner, url)
    assert (found["state"], found["reason"], found["withheld"]) == ("closed", "all_answered", None)
    assert (found["num_asked"], found["num_answered"], found["num_contributors"]) == (3, 3, 3)
    assert (found["metrics"]["num_examples"], found["metrics"]["accuracy"]) == (12, 0.75)
    for caller in (as_client(clients["north"]), as_user(member_of("north"))):
        assert read(caller, url)["metrics"] == found["metrics"]


def test_a_client_may_wait_for_one(
    owner: APIClient, model: FederatedModel, clients: dict[str, Registration]
) -> None:
    device, url = as_client(clients["north"]), f"{EVALUATIONS}?wait=9"

    nothing, of_user = device.get(url), owner.get(url)
    open_to(model)
    one = device.get(url)

    assert (nothing.json(), len(one.json())) == ([], 1)
    assert wait_of(nothing) == (frozenset({f"model:{model.pk}"}), 9.0)
    assert wait_of(of_user) is wait_of(one) is None
    assert device.get(f"{EVALUATIONS}?wait=x").status_code == 400


def test_metrics_of_too_few_are_never_told(
    owner: APIClient, evaluation: EvaluationRound, clients: dict[str, Registration]
) -> None:
    for name in ("north", "east"):
        answer(evaluation, clients[name].client)
    url = f"{EVALUATIONS}{evaluation.pk}/"
    assert read(owner, url)["withheld"]["code"] == "still_open"
    assert len(read(owner, url)["answered"]) == 2

    closed = owner.post(f"{url}close/").json()

    assert (closed["state"], closed["metrics"]) == ("closed", None)
    assert closed["withheld"]["code"] == "too_few_contributors"
    assert read(owner, url) == closed


def test_single_numbers_are_seen_by_their_own_organisation_only(
    shown: EvaluationRound, clients: dict[str, Registration], owner: APIClient
) -> None:
    url = f"{EVALUATIONS}{shown.pk}/results/"
    staff = as_user(make_user(staff=True))
    assert read(owner, url) == read(staff, url) == []
    for caller in (as_client(clients["north"]), as_user(member_of("north"))):
        (own,) = read(caller, url)
        assert (own["client"], own["organisation"]) == (str(clients["north"].client.pk), "north")
        assert own["statistics"] == counted(hits=1, misses=1)
        assert own["metrics"]["accuracy"] == 0.5


def test_owner_who_is_a_member_sees_the_own_organisation_only(
    shown: EvaluationRound, clients: dict[str, Registration], owner: APIClient, alice: User
) -> None:
    Organisation.objects.get(name="east").members.add(alice)
    (own,) = read(owner, f"{EVALUATIONS}{shown.pk}/results/")
    assert own["organisation"] == "east"


def test_no_single_number_is_in_what_a_developer_or_staff_reads(
    shown: EvaluationRound, owner: APIClient, model: FederatedModel
) -> None:
    for caller in (owner, as_user(make_user(staff=True))):
        for url in (f"{EVALUATIONS}{shown.pk}/", EVALUATIONS, f"{API}models/{model.pk}/evaluations/"):
            assert "statistics" not in caller.get(url).content.decode()


def test_members_see_evaluations_of_their_own_clients_only(
    evaluation: EvaluationRound, model: FederatedModel, clients: dict[str, Registration]
) -> None:
    more = [make_client(model).client.pk for _ in range(3)]
    without = open_to(model, chosen=Chosen(clients=more))
    member = as_user(member_of("north"))
    assert [found["id"] for found in read(member, EVALUATIONS)] == [evaluation.pk]
    assert member.get(f"{EVALUATIONS}{without.pk}/").status_code == 404
    for end in ("close", "cancel"):
        assert member.post(f"{EVALUATIONS}{evaluation.pk}/{end}/").status_code == 404
    assert member.get(f"{API}models/{model.pk}/").status_code == 404


def test_client_that_was_not_chosen_sees_nothing_and_is_told_when_it_answers(
    evaluation: EvaluationRound, model: FederatedModel
) -> None:
    device = as_client(make_client(model))
    url = f"{EVALUATIONS}{evaluation.pk}/"
    assert read(device, EVALUATIONS) == []
    assert device.get(url).status_code == device.get(f"{url}model/").status_code == 404
    refused = device.post(f"{url}results/", {"statistics": counted()})
    assert (refused.status_code, refused.json()["code"]) == (403, "not_selected")


def test_client_is_not_told_who_else_was_asked(
    evaluation: EvaluationRound, clients: dict[str, Registration]
) -> None:
    found = read(as_client(clients["north"]), f"{EVALUATIONS}{evaluation.pk}/")
    assert (found["clients"], found["answered"], found["num_asked"]) == (None, None, 3)


def test_second_answer_and_late_answer_are_conflicts(
    evaluation: EvaluationRound, clients: dict[str, Registration]
) -> None:
    url = f"{EVALUATIONS}{evaluation.pk}/results/"
    device, late = as_client(clients["north"]), as_client(clients["east"])
    first = device.post(url, {"statistics": counted()}).json()
    assert device.post(url, {"statistics": counted()}).json() == first
    other = device.post(url, {"statistics": counted(hits=2)})
    assert (other.status_code, other.json()["code"]) == (409, "result_taken")
    close_evaluation(evaluation)
    refused = late.post(url, {"statistics": counted()})
    assert (refused.status_code, refused.json()["code"]) == (409, "evaluation_closed")


def test_ended_evaluation_cannot_end_again(owner: APIClient, evaluation: EvaluationRound) -> None:
    url = f"{EVALUATIONS}{evaluation.pk}/"
    cancelled = owner.post(f"{url}cancel/").json()
    assert (cancelled["state"], cancelled["reason"]) == ("cancelled", "by_owner")
    assert cancelled["withheld"]["code"] == "cancelled"
    for end in ("close", "cancel"):
        refused = owner.post(f"{url}{end}/")
        assert (refused.status_code, refused.json()["code"]) == (409, "invalid_transition")


def test_uploaded_weights_as_safetensors_and_as_json(
    owner: APIClient, model: FederatedModel, clients: dict[str, Registration]
) -> None:
    url = f"{API}models/{model.pk}/evaluations/"
    asked = json.dumps({"question": BINARY})
    binary = owner.generic(
        "POST", f"{url}?{urlencode({'evaluation': asked})}", encode(arrays(7.0)), SAFETENSORS
    )
    as_json = owner.post(url, {"question": BINARY, "weights": weights(7.0)})
    assert binary.status_code == as_json.status_code == 201, binary.content
    assert binary.json()["sha256"] == as_json.json()["sha256"]
    assert (binary.json()["subject"], binary.json()["artifact"]) == ("upload", None)
    assert owner.get(as_json.json()["model"]).json() == weights(7.0)


def test_lists_are_filtered(owner: APIClient, evaluation: EvaluationRound, model: FederatedModel) -> None:
    other = open_to(model)
    owner.post(f"{EVALUATIONS}{other.pk}/cancel/")
    assert [found["id"] for found in read(owner, f"{EVALUATIONS}?state=open")] == [evaluation.pk]
    assert read(owner, f"{EVALUATIONS}?federated_model={model.pk + 1}") == []
    both = read(owner, f"{API}models/{model.pk}/evaluations/")
    assert [found["id"] for found in both] == [other.pk, evaluation.pk]


WRONG_REQUESTS = {
    "nothing": ({}, 400, "invalid", "question"),
    "a list": ([], 400, "invalid", "non_field_errors"),
    "a word as a question": ({"question": "binary"}, 400, "invalid_question", "question"),
    "an unknown task": ({"question": {"task": "ranking"}}, 400, "invalid_question", "question"),
    "a misspelt rule": ({"question": BINARY, "min_contributor": 5}, 400, "invalid", "min_contributor"),
    "no weights": ({"question": BINARY}, 400, "invalid_value", "weights"),
    "an aggregate that is not there": (
        {"question": BINARY, "aggregate": 4711},
        400,
        "invalid_value",
        "aggregate",
    ),
    "weights that do not fit": (
        {"question": BINARY, "weights": {"b": [1]}},
        422,
        "shape_mismatch",
        "weights",
    ),
    "a client that is none": ({"question": BINARY, "clients": ["ann"]}, 400, "invalid", "clients"),
    "too few contributors": (
        {"question": BINARY, "weights": WEIGHTS, "organisations": ["north"]},
        409,
        "too_few_contributors",
        None,
    ),
    "fewer than the server allows": (
        {"question": BINARY, "weights": WEIGHTS, "min_contributors": 2},
        400,
        "invalid_value",
        "min_contributors",
    ),
    "a deadline that is past": (
        {"question": BINARY, "weights": WEIGHTS, "deadline_s": -1},
        400,
        "invalid_value",
        "deadline_s",
    ),
    "a deadline that is no number": (
        {"question": BINARY, "weights": WEIGHTS, "deadline_s": "nan"},
        400,
        "invalid",
        "deadline_s",
    ),
}


@pytest.mark.parametrize(
    ("body", "status", "code", "field"), WRONG_REQUESTS.values(), ids=list(WRONG_REQUESTS)
)
def test_wrong_request_opens_nothing(
    owner: APIClient, model: FederatedModel, clients: dict[str, Registration], storage: Path,
    body: Any, status: int, code: str, field: str | None,
) -> None:  # fmt: skip
    files = stored_files(storage)
    refused = owner.post(f"{API}models/{model.pk}/evaluations/", body)
    assert (refused.status_code, refused.json()["code"]) == (status, code), refused.json()
    assert field is None or field in refused.json()
    assert not EvaluationRound.objects.exists()
    assert stored_files(storage) == files


@pytest.mark.parametrize("query", ["", "?evaluation=", "?evaluation={", "?evaluation=[]"])
def test_binary_request_without_its_facts_is_refused(
    owner: APIClient, model: FederatedModel, clients: dict[str, Registration], query: str
) -> None:
    url = f"{API}models/{model.pk}/evaluations/{query}"
    assert owner.generic("POST", url, encode(arrays()), SAFETENSORS).status_code == 400


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "invalid"),
        ({"statistics": None}, 400, "invalid"),
        ({"statistics": []}, 422, "invalid_statistics"),
        ({"statistics": {**counted(), "confusion": [[0, 0], [0, -1]]}}, 422, "invalid_statistics"),
        ({"statistics": {**counted(), "question": {**BINARY, "bins": 5}}}, 422, "invalid_statistics"),
        ({"statistics": {**counted(), "confusion": [[0, 0], [0, 1.5]]}}, 422, "invalid_statistics"),
    ],
    ids=["nothing", "null", "a list", "a negative count", "another question", "a fraction"],
)
def test_wrong_statistics_are_not_taken(
    evaluation: EvaluationRound, clients: dict[str, Registration], body: Any, status: int, code: str
) -> None:
    refused = as_client(clients["north"]).post(f"{EVALUATIONS}{evaluation.pk}/results/", body)
    assert (refused.status_code, refused.json()["code"]) == (status, code), refused.json()
    assert refused.json()["statistics"]
    assert not EvaluationResult.objects.exists()


def test_evaluation_that_isolates_is_refused_before_anybody_counts(
    owner: APIClient, shown: EvaluationRound, model: FederatedModel, clients: dict[str, Registration]
) -> None:
    make_member("west", model)
    body = {"question": BINARY, "artifact": model.current_artifact_id}
    refused = owner.post(f"{API}models/{model.pk}/evaluations/", body)
    assert (refused.status_code, refused.json()["code"]) == (409, "isolates_contributors")


def test_lists_take_as_many_queries_for_many_rows_as_for_few(
    owner: APIClient, model: FederatedModel, alice: User
) -> None:
    def grow(number: int) -> None:
        registrations = [make_client(model) for _ in range(number)]
        for _ in range(number):
            for registration in registrations[:-1]:
                answer(open_to(model), registration.client)

    def cost(caller: APIClient, url: str) -> int:
        caller.get(url)
        with CaptureQueriesContext(connection) as captured:
            assert caller.get(url, {"page_size": 200}).status_code == 200
        return len(captured)

    device = make_client(model)
    urls = [
        (owner, EVALUATIONS),
        (owner, f"{API}models/{model.pk}/evaluations/"),
        (as_client(device), EVALUATIONS),
    ]
    grow(3)
    before = [cost(*one) for one in urls]
    grow(6)
    assert [cost(*one) for one in urls] == before
    assert max(before) <= 6
