"""API tokens: their limits, their ends, and those who may see and revoke them."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client as Browser
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from fma_django.accounts import tokens
from fma_django.accounts.tokens import Limits, create_token, issue_token
from fma_django.accounts.users import change_user, set_member
from fma_django.errors import NotPermitted
from fma_django.models import ApiToken, Organisation
from tests.api.callers import API, as_token, as_user
from tests.records import PASSWORD, make_model, make_user, make_user_with

pytestmark = pytest.mark.django_db

TOKENS = f"{API}tokens/"
ME = f"{API}me/"
NEW_PASSWORD = "another correct horse"


@pytest.fixture
def root(db: None) -> User:
    return make_user("root", staff=True)


def made(api: APIClient, **said: Any) -> dict[str, Any]:
    answer = api.post(TOKENS, {"name": "backup", "scope": "read", **said})
    assert answer.status_code == 201, answer.content
    row: dict[str, Any] = answer.json()
    return row


def test_a_token_is_shown_once_and_its_hash_never(root: User) -> None:
    owner = as_user(root)

    row = made(owner, name="backup")

    listed = owner.get(TOKENS)
    assert [each["name"] for each in listed.json()] == ["backup", "login"]
    assert row["token"] not in listed.content.decode()
    assert row["token"] not in str(list(ApiToken.objects.values()))
    for kept in ApiToken.objects.all():
        assert kept.key_hash not in listed.content.decode()
    said = as_token(row["token"]).get(ME).json()
    assert (said["username"], said["token"]["name"], said["token"]["scope"]) == ("root", "backup", "read")


def test_several_tokens_end_one_by_one(root: User) -> None:
    owner = as_user(root)
    first, second = made(owner, name="a"), made(owner, name="b")

    assert owner.delete(f"{TOKENS}{first['id']}/").status_code == 204

    assert as_token(first["token"]).get(ME).status_code == 401
    assert as_token(second["token"]).get(ME).status_code == 200
    assert owner.get(ME).status_code == 200


def test_a_token_ends_when_it_expires(root: User) -> None:
    row = made(as_user(root), expires_on=(timezone.now() + timedelta(hours=1)).isoformat())
    assert as_token(row["token"]).get(ME).status_code == 200

    ApiToken.objects.filter(pk=row["id"]).update(expires_on=timezone.now())

    assert as_token(row["token"]).get(ME).status_code == 401


@pytest.mark.parametrize(
    ("said", "member"),
    [
        ({"name": ""}, "name"),
        ({"name": "login"}, "name"),
        ({"name": "taken"}, "name"),
        ({"name": "n" * 101}, "name"),
        ({"name": "a\x00"}, "name"),
        ({"scope": "everything"}, "scope"),
        ({"scope": None}, "scope"),
        ({"federated_model": 10**6}, "federated_model"),
        ({"federated_model": 10**30}, "federated_model"),
        ({"expires_on": "2020-01-01T00:00:00Z"}, "expires_on"),
        ({"expires_on": "0001-01-01T00:00:00+14:00"}, "expires_on"),
        ({"expires_on": "9999-12-31T23:59:59-12:00"}, "expires_on"),
        ({"expires_in": "90d"}, "expires_in"),
    ],
)
def test_a_token_that_cannot_be_is_refused(root: User, said: dict[str, Any], member: str) -> None:
    owner = as_user(root)
    made(owner, name="taken")

    refused = owner.post(TOKENS, {"name": "backup", "scope": "read", **said})

    assert refused.status_code == 400, refused.content
    assert member in refused.json()
    assert ApiToken.objects.filter(user=root).count() == 2


def test_a_model_that_the_user_does_not_see_has_no_token(db: None) -> None:
    api, model = as_user(make_user("ann")), make_model(make_user("bob"))

    assert api.post(TOKENS, {"name": "a", "scope": "read", "federated_model": model.pk}).status_code == 400


def test_the_token_of_a_model_ends_with_the_model(root: User) -> None:
    owner, model = as_user(root), make_model(root)
    row = made(owner, scope="write", federated_model=model.pk)
    assert as_token(row["token"]).get(ME).json()["models"] == [model.pk]

    assert owner.delete(f"{API}models/{model.pk}/").status_code == 204

    assert as_token(row["token"]).get(ME).status_code == 401


def test_a_token_gives_none_that_works_longer(root: User) -> None:
    until = timezone.now() + timedelta(hours=1)
    short = as_token(create_token(root, "short", Limits("admin", expires_on=until))[1])

    for said in ({}, {"expires_on": (until + timedelta(seconds=1)).isoformat()}):
        refused = short.post(TOKENS, {"name": "long", "scope": "read", **said})
        assert (refused.status_code, refused.json()["code"]) == (403, "not_permitted")
    assert (
        short.post(TOKENS, {"name": "as long", "scope": "admin", "expires_on": until.isoformat()}).status_code
        == 201
    )


@pytest.mark.parametrize("limits", [Limits("read"), Limits("write")])
def test_nobody_gives_a_wider_scope_than_the_token_that_asks(root: User, limits: Limits) -> None:
    asks, _ = create_token(root, "asks", limits)

    with pytest.raises(NotPermitted):
        create_token(root, "wider", Limits("admin"), asked_with=asks)
    refused = as_token(create_token(root, "asks too", limits)[1]).post(TOKENS, {"name": "b", "scope": "read"})
    assert (refused.status_code, refused.json()["code"]) == (403, "not_permitted")


def test_a_token_of_a_model_gives_none_for_another(root: User) -> None:
    model = make_model(root)
    asks, _ = create_token(root, "asks", Limits("admin", model))

    for wider in (Limits("read"), Limits("read", make_model(root))):
        with pytest.raises(NotPermitted):
            create_token(root, "wider", wider, asked_with=asks)
    create_token(root, "as wide", Limits("read", model), asked_with=asks)


def test_a_method_in_a_header_does_not_widen_a_scope(root: User) -> None:
    read = as_token(create_token(root, "read", Limits("read"))[1])

    refused = read.post(
        f"{API}uploads/?initial_model={make_model(root).pk}",
        headers={"x-http-method-override": "PATCH", "tus-resumable": "1.0.0", "upload-length": "4"},
    )

    assert refused.status_code == 403


def test_an_update_of_a_user_needs_the_scope_and_the_model(root: User) -> None:
    """The fast path, which asks no permission class."""
    model, other = make_model(root), make_model(root)
    for limits, code in (
        (Limits("read"), "not_permitted"),
        (Limits("write", other), "unknown_model"),
        (Limits("write", model), "invalid"),
    ):
        api = as_token(create_token(root, code, limits)[1])
        refused = api.post(f"{API}model_updates/", {"federated_model": model.pk, "data": {"w": [1.0]}})
        assert refused.json()["code"] == code, refused.content


# Seeing and revoking those of others


def test_whoever_may_change_a_user_sees_and_revokes_their_tokens(root: User) -> None:
    owner, ann = as_user(root), make_user("ann")
    token = issue_token(ann)

    listed = owner.get(TOKENS, {"user": ann.pk}).json()

    assert [(row["user"], row["name"]) for row in listed] == [(ann.pk, "login")]
    assert owner.delete(f"{TOKENS}{listed[0]['id']}/").status_code == 204
    assert as_token(token).get(ME).status_code == 401


@pytest.mark.parametrize(("role", "status"), [("auditor", 403), ("operator", 404), ("data scientist", 404)])
def test_others_neither_see_nor_revoke_them(root: User, role: str, status: int) -> None:
    issue_token(root)
    kept = ApiToken.objects.get(user=root)
    api = as_user(make_user_with(username="caller", role=role))

    assert api.get(TOKENS, {"user": root.pk}).status_code == status
    assert api.delete(f"{TOKENS}{kept.pk}/").status_code == status
    assert ApiToken.objects.filter(pk=kept.pk).exists()


def test_the_admin_of_an_organisation_revokes_those_of_its_members_alone(root: User) -> None:
    hospital = Organisation.objects.create(name="hospital")
    admin, nurse = make_user_with(username="admin"), make_user_with(username="nurse")
    set_member(hospital, admin, Group.objects.get(name="organisation admin"), by=None)
    set_member(hospital, nurse, None, by=None)
    for user in (nurse, root):
        issue_token(user)
    theirs, owners = ApiToken.objects.get(user=nurse), ApiToken.objects.get(user=root)
    api = as_user(admin)

    assert api.delete(f"{TOKENS}{theirs.pk}/").status_code == 204
    assert api.delete(f"{TOKENS}{owners.pk}/").status_code == 404


@pytest.mark.parametrize("asked", ["", "x", "-1", "1.5", "9" * 30, "²", "1\x00"])
def test_a_user_that_is_no_number_is_400(root: User, asked: str) -> None:
    assert as_user(root).get(TOKENS, {"user": asked}).status_code == 400


# Ends


def change_over_the_api(root: User, user: User) -> None:
    assert as_user(root).patch(f"{API}users/{user.pk}/", {"password": NEW_PASSWORD}).status_code == 200


def take_the_password_over_the_api(root: User, user: User) -> None:
    assert as_user(root).patch(f"{API}users/{user.pk}/", {"password": None}).status_code == 200


def change_by_django(root: User, user: User) -> None:
    """As `fma manage changepassword` and the admin do."""
    user = User.objects.get(pk=user.pk)
    user.set_password(NEW_PASSWORD)
    user.save()


def change_one_column(root: User, user: User) -> None:
    user = User.objects.get(pk=user.pk)
    user.set_password(NEW_PASSWORD)
    user.save(update_fields=["password"])


def deactivate(root: User, user: User) -> None:
    assert as_user(root).patch(f"{API}users/{user.pk}/", {"is_active": False}).status_code == 200


def deactivate_and_activate(root: User, user: User) -> None:
    for is_active in (False, True):
        change_user(user, {"is_active": is_active}, by=None)


def delete(root: User, user: User) -> None:
    assert as_user(root).delete(f"{API}users/{user.pk}/").status_code == 204


ENDS = (
    change_over_the_api,
    take_the_password_over_the_api,
    change_by_django,
    change_one_column,
    deactivate,
    deactivate_and_activate,
    delete,
)


@pytest.mark.parametrize("end", ENDS)
def test_all_tokens_and_sessions_end(root: User, end: Any) -> None:
    user, bystander = make_user("ann", staff=True), make_user("bob", staff=True)
    browser, beside = Browser(), Browser()
    assert browser.login(username="ann", password=PASSWORD)
    assert beside.login(username="bob", password=PASSWORD)
    secrets = [issue_token(user), create_token(user, "backup", Limits("read"))[1]]
    kept = issue_token(bystander)
    assert browser.get(ME).status_code == 200
    assert browser.get("/admin/").status_code == 200

    end(root, user)

    assert [as_token(secret).get(ME).status_code for secret in secrets] == [401, 401]
    assert browser.get("/admin/").status_code == 302
    assert browser.get(ME).status_code == 401
    assert as_token(kept).get(ME).status_code == 200
    assert beside.get("/admin/").status_code == 200


def test_a_session_lasts_so_long_after_the_last_request(root: User, settings: Any) -> None:
    assert settings.SESSION_COOKIE_AGE == 8 * 3600
    settings.SESSION_COOKIE_AGE = 600
    browser = Browser()
    said = {"username": "root", "password": PASSWORD, "next": "/admin/"}
    cookie = browser.post("/admin/login/", said).cookies[settings.SESSION_COOKIE_NAME]
    assert (cookie["max-age"], cookie["httponly"], cookie["samesite"]) == (600, True, "Lax")
    session = Session.objects.get()
    Session.objects.update(expire_date=timezone.now() + timedelta(seconds=5))

    later = browser.get("/admin/")

    assert later.cookies[settings.SESSION_COOKIE_NAME]["max-age"] == 600
    session.refresh_from_db()
    assert session.expire_date > timezone.now() + timedelta(seconds=590)
    Session.objects.update(expire_date=timezone.now())
    assert browser.get("/admin/").status_code == 302


def test_the_next_login_gives_another_token(root: User) -> None:
    old = issue_token(root)
    change_by_django(root, root)

    answer = APIClient().post("/api-token-auth/", {"username": "root", "password": NEW_PASSWORD})

    assert answer.json()["token"] != old
    assert as_token(answer.json()["token"]).get(ME).status_code == 200


def test_what_is_no_new_password_ends_nothing(root: User, settings: Any) -> None:
    token = issue_token(root)
    settings.PASSWORD_HASHERS = [
        "django.contrib.auth.hashers.PBKDF2SHA1PasswordHasher",
        *settings.PASSWORD_HASHERS,
    ]
    before = User.objects.get().password

    login = APIClient().post("/api-token-auth/", {"username": "root", "password": PASSWORD})
    change_user(root, {"email": "root@example.org"}, by=None)

    assert login.json()["token"] == token
    assert User.objects.get().password != before, "hashed anew"
    assert as_token(token).get(ME).status_code == 200


def test_a_password_that_has_just_been_changed_gives_no_token(root: User) -> None:
    stale = User.objects.get()
    change_by_django(root, root)

    for make in (lambda: issue_token(stale), lambda: create_token(stale, "late", Limits("read"))):
        with pytest.raises(NotPermitted):
            make()


def test_a_token_that_has_just_been_revoked_gives_no_other(root: User) -> None:
    asks, _ = create_token(root, "asks", Limits("admin"))
    tokens.revoke_tokens(root)

    with pytest.raises(NotPermitted):
        create_token(root, "late", Limits("read"), asked_with=asks)


# The last use


def test_the_last_use_is_shown_and_written_once_a_minute(root: User, monkeypatch: pytest.MonkeyPatch) -> None:
    row = made(as_user(root))
    api = as_token(row["token"])

    def writes() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert api.get(ME).status_code == 200
        return sum(query["sql"].startswith("UPDATE") for query in captured)

    assert row["last_used_on"] is None
    assert [writes() for _ in range(3)] == [1, 0, 0]
    first = ApiToken.objects.get(pk=row["id"]).last_used_on
    assert first is not None
    assert abs(timezone.now() - first) < timedelta(seconds=30)
    ApiToken.objects.filter(pk=row["id"]).update(last_used_on=first - timedelta(seconds=61))
    assert [writes() for _ in range(2)] == [1, 0]


def test_a_user_has_so_many_tokens_and_no_more(root: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MAX_TOKENS", 2)
    owner = as_user(root)
    made(owner, name="a")

    assert owner.post(TOKENS, {"name": "b", "scope": "read"}).status_code == 400
