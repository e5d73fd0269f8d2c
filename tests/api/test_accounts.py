"""Users, roles and organisations over the API."""

from typing import Any

import pytest
from allauth.mfa.totp.internal.auth import TOTP
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth.models import Group, Permission, User
from pytest_django import Settings
from rest_framework.test import APIClient
from structlog.testing import capture_logs

from fma_django.accounts import second_factor
from fma_django.accounts.users import set_member
from fma_django.models import Client, Membership, Organisation
from tests.api.callers import API, as_user
from tests.records import make_client, make_model, make_user, make_user_with, send_update, weights

USERS, ROLES, ORGANISATIONS = f"{API}users/", f"{API}roles/", f"{API}organisations/"


@pytest.fixture
def owner(db: None) -> APIClient:
    return as_user(make_user("root", staff=True))


@pytest.fixture
def hospital(db: None) -> Organisation:
    return Organisation.objects.create(name="hospital")


@pytest.fixture
def admin(hospital: Organisation) -> APIClient:
    user = make_user_with(username="admin")
    set_member(hospital, user, Group.objects.get(name="organisation admin"), by=None)
    return as_user(user)


def test_a_user_is_added_changed_and_removed(owner: APIClient) -> None:
    said = {
        "username": "ben",
        "email": "ben@example.org",
        "roles": ["operator"],
        "password": "correct horse 7",
    }

    made = owner.post(USERS, said)

    assert made.status_code == 201
    row = made.json()
    assert (row["username"], row["email"], row["roles"], row["is_owner"]) == (
        "ben",
        "ben@example.org",
        ["operator"],
        False,
    )
    assert "password" not in row
    assert "pbkdf2" not in made.content.decode()
    url = f"{USERS}{row['id']}/"
    assert owner.patch(url, {"roles": ["auditor"], "is_active": False}).json()["roles"] == ["auditor"]
    assert owner.get(url).json()["is_active"] is False
    assert owner.delete(url).status_code == 204
    assert owner.get(url).status_code == 404


def test_no_answer_shows_a_password_or_its_hash(owner: APIClient) -> None:
    for url in (USERS, f"{USERS}{User.objects.get().pk}/", f"{API}me/"):
        text = owner.get(url).content.decode()
        assert "password" not in text
        assert User.objects.get().password not in text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"email": "HOSPITAL"}, ["nurse"]),
        ({"username": "Nurse"}, ["nurse"]),
        ({"role": "auditor"}, ["guest", "nurse"]),
        ({"is_owner": "true"}, ["root"]),
        ({"is_active": "false"}, []),
        ({"email": "nowhere"}, []),
    ],
)
def test_users_are_found(
    owner: APIClient, hospital: Organisation, query: dict[str, str], found: list[str]
) -> None:
    nurse = make_user_with(username="nurse")
    User.objects.filter(pk=nurse.pk).update(email="nurse@hospital.example")
    set_member(hospital, nurse, Group.objects.get(name="auditor"), by=None)
    make_user_with(username="guest", role="auditor")

    rows = owner.get(USERS, query)

    assert rows.status_code == 200
    assert sorted(row["username"] for row in rows.json()) == found
    of_hospital = owner.get(USERS, {"organisation": hospital.pk}).json()
    assert [row["organisations"] for row in of_hospital] == [
        [{"id": hospital.pk, "name": "hospital", "role": "auditor"}]
    ]


def test_lists_take_the_same_queries_for_many(
    owner: APIClient, hospital: Organisation, django_assert_max_num_queries: Any
) -> None:
    for _ in range(5):
        set_member(hospital, make_user_with(role="auditor"), Group.objects.get(name="auditor"), by=None)
    for url in (USERS, ROLES, ORGANISATIONS):
        with django_assert_max_num_queries(7):
            assert len(owner.get(url).json()) > 0


def test_a_role_is_made_changed_and_removed(owner: APIClient) -> None:
    row = owner.post(ROLES, {"name": "watcher", "permissions": ["fma_django.view_round"]}).json()
    url = f"{ROLES}{row['id']}/"

    assert (row["permissions"], row["is_preset"], row["num_users"]) == (["fma_django.view_round"], False, 0)
    changed = owner.patch(url, {"name": "reader", "permissions": ["fma_django.view_client"]}).json()
    assert (changed["name"], changed["permissions"]) == ("reader", ["fma_django.view_client"])
    assert owner.delete(url).status_code == 204


def test_a_preset_is_edited_and_kept(owner: APIClient) -> None:
    url = f"{ROLES}{Group.objects.get(name='auditor').pk}/"

    assert owner.patch(url, {"permissions": []}).json()["permissions"] == []
    for refused in (owner.delete(url), owner.patch(url, {"name": "reader"})):
        assert (refused.status_code, refused.json()["code"]) == (409, "still_in_use")


@pytest.mark.parametrize(
    ("body", "member"),
    [
        ({}, "username"),
        ({"username": "a b"}, "username"),
        ({"username": "new", "roles": ["pilot"]}, "roles"),
        ({"username": "new", "roles": "auditor"}, "roles"),
        ({"username": "new", "roles": [{"name": "auditor"}]}, "roles"),
        ({"username": "new", "role": "auditor"}, "role"),
        ({"username": "new", "organisation": 10**6}, "organisation"),
        ({"username": "new", "organisation": 10**30}, "organisation"),
        ({"username": "new", "emial": "a@example.org"}, "emial"),
        ({"username": "new", "password": "1234"}, "password"),
        ({"username": "ne\x00w"}, "username"),
        ({"username": "new", "roles": ["a\x00"]}, "roles"),
        ({"username": "new", "email": "a@example.org\x00"}, "email"),
    ],
)
def test_what_cannot_be_is_refused(owner: APIClient, body: dict[str, Any], member: str) -> None:
    refused = owner.post(USERS, body)

    assert refused.status_code == 400, refused.content
    assert member in refused.json() or refused.json()["errors"][0]["field"] == member
    assert not User.objects.filter(username__startswith="ne").exists()


def test_the_admin_of_an_organisation_sees_and_manages_it_alone(
    admin: APIClient, hospital: Organisation, owner: APIClient
) -> None:
    bank = Organisation.objects.create(name="bank")
    model = make_model(make_user("alice"), initial_model={"w": [0.0]}, allow_aggregation=False)
    ours, theirs = make_client(model), make_client(model)
    Client.objects.filter(pk=ours.client.pk).update(organisation=hospital)
    Client.objects.filter(pk=theirs.client.pk).update(organisation=bank)
    updates = [send_update(model, each.client, {"w": [1.0]}) for each in (ours, theirs)]

    assert [row["name"] for row in admin.get(ORGANISATIONS).json()] == ["hospital"]
    assert [row["id"] for row in admin.get(f"{API}clients/").json()] == [str(ours.client.pk)]
    assert [row["id"] for row in admin.get(f"{API}model_updates/").json()] == [updates[0].pk]
    assert [row["id"] for row in admin.get(f"{API}models/").json()] == [model.pk]
    assert admin.patch(f"{API}clients/{ours.client.pk}/", {"name": "ward"}).status_code == 200
    assert admin.patch(f"{API}clients/{theirs.client.pk}/", {"name": "ward"}).status_code == 404
    moved = admin.patch(f"{API}clients/{ours.client.pk}/", {"organisation": "bank"})
    assert (moved.status_code, moved.json()["code"]) == (403, "not_permitted")
    made = admin.post(USERS, {"username": "nurse", "organisation": hospital.pk, "role": "auditor"})
    assert made.status_code == 201
    assert admin.post(USERS, {"username": "spy", "organisation": bank.pk}).status_code == 400
    assert admin.post(USERS, {"username": "spy"}).status_code == 403
    assert sorted(row["username"] for row in admin.get(USERS).json()) == ["admin", "nurse"]
    assert admin.post(f"{ORGANISATIONS}{bank.pk}/members/", {"username": "admin"}).status_code == 404


def test_members_come_and_go(admin: APIClient, hospital: Organisation) -> None:
    admin.post(USERS, {"username": "nurse", "organisation": hospital.pk})
    nurse = User.objects.get(username="nurse")
    url = f"{ORGANISATIONS}{hospital.pk}/members/"

    assert admin.post(url, {"username": "nurse", "role": "auditor"}).json() == {
        "user": nurse.pk,
        "username": "nurse",
        "role": "auditor",
    }
    assert [row["username"] for row in admin.get(url).json()] == ["admin", "nurse"]
    assert admin.post(url, {"username": "nurse"}).json()["role"] is None
    refused = admin.post(url, {"username": "nurse", "role": "operator"})
    assert (refused.status_code, refused.json()["code"]) == (403, "not_permitted")
    assert admin.post(url, {"username": "nobody"}).status_code == 400
    assert admin.delete(f"{url}{nurse.pk}/").status_code == 204
    assert admin.delete(f"{url}{nurse.pk}/").status_code == 404
    assert not Membership.objects.filter(user=nurse).exists()


def test_users_of_others_are_added_by_who_may_see_them_alone(
    admin: APIClient, owner: APIClient, hospital: Organisation
) -> None:
    make_user_with(username="stranger")
    url = f"{ORGANISATIONS}{hospital.pk}/members/"

    known, unknown = admin.post(url, {"username": "stranger"}), admin.post(url, {"username": "nobody"})

    assert (known.status_code, unknown.status_code) == (400, 400)
    assert known.json()["detail"].replace("stranger", "nobody") == unknown.json()["detail"]
    assert [row["username"] for row in admin.get(USERS).json()] == ["admin"]
    assert owner.post(url, {"username": "stranger"}).status_code == 200


@pytest.mark.parametrize("role", ["operator", "may add organisations"])
def test_a_role_in_an_organisation_makes_no_other(hospital: Organisation, role: str) -> None:
    custom = Group.objects.create(name="may add organisations")
    custom.permissions.add(Permission.objects.get(codename="add_organisation"))
    member = make_user_with(username="member")
    set_member(hospital, member, Group.objects.get(name=role), by=None)

    refused = as_user(member).post(f"{API}organisations/", {"name": "new"})

    assert (refused.status_code, refused.json()["code"]) == (403, "not_permitted")
    assert [*Organisation.objects.all()] == [hospital]
    assert (
        as_user(make_user_with(role="operator")).post(f"{API}organisations/", {"name": "new"}).json()["name"]
        == "new"
    )


def test_an_admin_sees_no_other_organisation_of_its_members(
    admin: APIClient, owner: APIClient, hospital: Organisation
) -> None:
    clinic, nurse = Organisation.objects.create(name="secret clinic"), make_user_with(username="nurse")
    set_member(hospital, nurse, None, by=None)
    set_member(clinic, nurse, Group.objects.get(name="auditor"), by=None)

    one, listed = admin.get(f"{API}users/{nurse.pk}/"), admin.get(f"{API}users/")

    assert [place["name"] for place in one.json()["organisations"]] == ["hospital"]
    for answer in (one, listed):
        assert "clinic" not in answer.content.decode()
        assert "auditor" not in answer.content.decode()
    for asked in ({"organisation": clinic.pk}, {"role": "auditor"}):
        assert admin.get(f"{API}users/", asked).json() == []
        assert [row["username"] for row in owner.get(f"{API}users/", asked).json()] == ["nurse"]
    own = as_user(nurse).get(f"{API}users/{nurse.pk}/").json()["organisations"]
    assert [place["name"] for place in own] == ["hospital", "secret clinic"]


def test_who_lost_the_role_of_a_data_scientist_changes_nothing_any_more(db: None) -> None:
    alice = make_user_with(username="alice", role="data scientist")
    model = make_model(alice)
    api = as_user(alice)
    assert api.patch(f"{API}models/{model.pk}/", {"name": "mine"}).status_code == 200

    alice.groups.clear()

    assert api.get(f"{API}models/{model.pk}/").status_code == 200
    assert api.patch(f"{API}models/{model.pk}/", {"name": "still mine"}).status_code == 403
    assert api.post(f"{API}models/", {"name": "new", "aggregator": "mean"}).status_code == 403
    body = {"federated_model": model.pk, "data": weights(1.0), "client": str(make_client(model).client.pk)}
    refused = api.post(f"{API}model_updates/", body)
    assert (refused.status_code, refused.json()["code"]) == (403, "not_permitted")


def test_the_only_owner_stays(owner: APIClient) -> None:
    url = f"{USERS}{User.objects.get().pk}/"

    for refused in (
        owner.delete(url),
        owner.patch(url, {"is_owner": False}),
        owner.patch(url, {"is_active": False}),
    ):
        assert (refused.status_code, refused.json()["code"]) == (409, "last_owner")


def test_me_says_roles_and_organisations(admin: APIClient, hospital: Organisation) -> None:
    said = admin.get(f"{API}me/").json()

    assert (said["roles"], said["rights"], said["is_staff"]) == ([], [], False)
    assert said["organisations"] == [{"id": hospital.pk, "name": "hospital", "role": "organisation admin"}]


def test_the_second_factor_of_a_user_is_taken_off(
    owner: APIClient, admin: APIClient, hospital: Organisation
) -> None:
    colleague, root = make_user_with(username="colleague"), User.objects.get(username="root")
    set_member(hospital, colleague, None, by=None)
    for user in (colleague, root):
        TOTP.activate(user, "A" * 32)

    assert admin.delete(f"{USERS}{root.pk}/second_factor/").status_code == 404, "whom the admin does not see"
    assert owner.delete(f"{USERS}{root.pk}/second_factor/").json()["code"] == "not_permitted", "oneself"
    assert second_factor.is_on(root)
    with capture_logs() as logs:
        assert admin.delete(f"{USERS}{colleague.pk}/second_factor/").status_code == 204
    [event] = [line for line in logs if line["event"] == "second_factor_taken_off"]
    assert (event["user"], event["by"]) == (colleague.pk, User.objects.get(username="admin").pk)
    assert not second_factor.is_on(colleague)
    assert owner.delete(f"{USERS}{colleague.pk}/second_factor/").status_code == 404


def test_accounts_of_a_user_are_bound_and_unbound(owner: APIClient, settings: Settings) -> None:
    anna, ben = make_user("anna"), make_user("ben")
    of_anna, of_ben = (f"{USERS}{user.pk}/accounts/" for user in (anna, ben))
    assert owner.post(of_anna, {"subject": "s-1"}).json()["detail"] == "FMA_OIDC_ISSUER is not set"
    settings.FMA_OIDC_ISSUER = "https://idp.example.org"

    with capture_logs() as logs:
        made = owner.post(of_anna, {"subject": "s-1"})
        again, taken = owner.post(of_anna, {"subject": "s-1"}), owner.post(of_ben, {"subject": "s-1"})

    assert (made.status_code, again.status_code, taken.status_code) == (201, 201, 409)
    assert made.json()["id"] == again.json()["id"]
    assert taken.json()["code"] == "account_taken"
    assert (made.json()["subject"], made.json()["issuer"]) == ("s-1", "https://idp.example.org")
    assert [row["id"] for row in owner.get(of_anna).json()] == [made.json()["id"]]
    assert owner.get(of_ben).json() == []
    assert {"event": "oidc_account_bound", "user": anna.pk, "subject": "s-1", "by": "root"}.items() <= logs[
        0
    ].items()
    assert owner.delete(f"{of_ben}{made.json()['id']}/").status_code == 404
    with capture_logs() as logs:
        assert owner.delete(f"{of_anna}{made.json()['id']}/").status_code == 204
    assert [line["by"] for line in logs if line["event"] == "oidc_account_unbound"] == ["root"]
    assert not SocialAccount.objects.exists()


@pytest.mark.parametrize("subject", ["", "a\nb", "a" * 192, "\x00", "\u202ea", None, 7])
def test_what_is_no_subject_is_not_bound(owner: APIClient, settings: Settings, subject: Any) -> None:
    settings.FMA_OIDC_ISSUER = "https://idp.example.org"
    url = f"{USERS}{make_user('anna').pk}/accounts/"

    answer = owner.post(url, {"subject": subject}, format="json")

    assert answer.status_code == (201 if subject == 7 else 400), answer.content
    assert SocialAccount.objects.count() == (subject == 7)


def test_nobody_binds_an_account_to_whoever_holds_more(settings: Settings, owner: APIClient) -> None:
    settings.FMA_OIDC_ISSUER = "https://idp.example.org"
    root = User.objects.get(username="root")
    made = owner.post(f"{USERS}{root.pk}/accounts/", {"subject": "s-1"}).json()["id"]
    operator = as_user(make_user_with("auth.view_user", "auth.change_user", username="operator"))
    url = f"{USERS}{root.pk}/accounts/"

    answers = [operator.get(url), operator.post(url, {"subject": "s-2"}), operator.delete(f"{url}{made}/")]
    answers.append(operator.delete(f"{url}{made + 1}/"))  # as one that is there
    answers.append(operator.delete(f"{USERS}{root.pk}/second_factor/"))

    assert [answer.status_code for answer in answers] == [403] * 5
    assert SocialAccount.objects.get().uid == "s-1"
