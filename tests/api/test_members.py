"""Members of an organisation see its clients in the rows of a model, and those of no other organisation."""

from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from fma_django.accounts.users import set_member
from fma_django.clients.registration import Registration, describe_client
from fma_django.evaluations.results import receive_result
from fma_django.models import FederatedModel, Organisation
from tests.api.callers import API, as_user
from tests.evaluations import counted, open_to
from tests.records import WEIGHTS, make_aggregate, make_client, make_model, make_user_with

pytestmark = [pytest.mark.django_db, pytest.mark.untraced]

ROLES = ("compliance officer", "organisation admin", "auditor", "operator")


@dataclass
class World:
    """A model with clients of two hospitals and of none; one evaluation; a round that asked two of them."""

    model: FederatedModel
    owner: User
    hospital: Organisation
    own: Registration
    other: Registration
    evaluation: int

    def paths(self) -> tuple[str, ...]:
        model = f"models/{self.model.pk}/"
        evaluation = f"evaluations/{self.evaluation}/"
        return (
            *("models/", model, f"{model}rounds/", f"{model}rounds/1/", "evaluations/", evaluation),
            *(f"{model}rounds/{number}/selection/" for number in (1, 2)),
        )


@pytest.fixture
def world(alice: User) -> World:
    model = make_model(
        alice,
        initial_model=WEIGHTS,
        selector={"name": "random"},
        round_policy={"goal": 2, "quorum": 2, "deadline_s": 600},
        allow_aggregation=False,
    )
    hospital, clinic = (Organisation.objects.create(name=name) for name in ("hospital", "clinic"))
    own, other = make_client(model), make_client(model)
    describe_client(own.client, name="ours", organisation=hospital, tags=[])
    describe_client(other.client, name="theirs", organisation=clinic, tags=[])
    overrides = [
        {"tags": ["gpu"], "set": {"epochs": 2}},
        {"clients": [str(other.client.pk)], "set": {"epochs": 1}},
    ]
    as_user(alice).patch(
        f"{API}models/{model.pk}/", {"client_config": {"epochs": 3}, "client_config_overrides": overrides}
    )
    assert as_user(alice).post(f"{API}models/{model.pk}/start/").status_code == 200
    make_aggregate(model, own.client, other.client)
    make_client(model)
    evaluation = open_to(model)
    for answering in (own, other):
        receive_result(evaluation, answering.client, counted())
    return World(model, alice, hospital, own, other, evaluation.pk)


def member_of(organisation: Organisation, role: str | None) -> APIClient:
    user = make_user_with(username="member")
    set_member(organisation, user, None if role is None else Group.objects.get(name=role), by=None)
    return as_user(user)


def get(api: APIClient, path: str) -> Any:
    answer = api.get(f"{API}{path}")
    assert answer.status_code == 200, path
    return answer


@pytest.mark.parametrize("role", ROLES)
def test_a_role_in_an_organisation_shows_no_client_of_another(world: World, role: str) -> None:
    member, owner = member_of(world.hospital, role), as_user(world.owner)

    for path in world.paths():
        shown, all_of_it = (get(api, path).content.decode() for api in (member, owner))
        assert str(world.other.client.pk) in all_of_it, path
        assert str(world.other.client.pk) not in shown, path
        assert "theirs" not in shown, path


@pytest.mark.parametrize("role", ROLES)
def test_a_role_in_an_organisation_shows_its_own_clients(world: World, role: str) -> None:
    member, own = member_of(world.hospital, role), str(world.own.client.pk)

    model = get(member, f"models/{world.model.pk}/").json()
    evaluation = get(member, f"evaluations/{world.evaluation}/").json()
    selection = get(member, f"models/{world.model.pk}/rounds/1/selection/").json()

    assert model["clients"] == evaluation["clients"] == evaluation["answered"] == [own]
    assert model["client_config_overrides"] == [{"tags": ["gpu"], "set": {"epochs": 2}}]
    assert [row["client"] for row in selection["clients"]] == [own]
    assert selection["num_asked"] == 2


def test_what_a_round_says_of_single_clients_is_for_the_owner(world: World) -> None:
    path = f"models/{world.model.pk}/rounds/1/"

    shown = get(member_of(world.hospital, "compliance officer"), path).json()
    whole = get(as_user(world.owner), path).json()

    assert (shown["clients"], shown["metrics"]) == (None, None)
    assert len(whole["clients"]) == 2
    assert whole["metrics"] is not None
    assert shown["num_updates"] == whole["num_updates"] == 2


def test_a_member_without_a_role_sees_its_own_clients_in_an_evaluation(world: World) -> None:
    member = member_of(world.hospital, None)

    row = get(member, f"evaluations/{world.evaluation}/").json()

    assert row["clients"] == row["answered"] == [str(world.own.client.pk)]
    assert row["num_asked"] == 3


@pytest.mark.parametrize("role", ["auditor", "operator"])
def test_a_role_for_the_whole_installation_shows_everybody(world: World, role: str) -> None:
    api = as_user(make_user_with(username="global", role=role))

    for path in world.paths():
        assert str(world.other.client.pk) in get(api, path).content.decode(), path


@pytest.mark.parametrize("path", ["models/", "evaluations/"])
def test_lists_take_as_many_queries_for_many_rows(world: World, path: str) -> None:
    member, owner = member_of(world.hospital, "compliance officer"), as_user(world.owner)

    def queries() -> list[int]:
        counts = []
        for api in (member, owner):
            with CaptureQueriesContext(connection) as captured:
                get(api, path)
            counts.append(len(captured))
        return counts

    before = queries()
    for _ in range(3):
        more = make_model(world.owner, initial_model=WEIGHTS)
        describe_client(make_client(more).client, name="", organisation=world.hospital, tags=[])
        for _ in range(2):
            make_client(more)
        open_to(more)

    assert queries() == before
