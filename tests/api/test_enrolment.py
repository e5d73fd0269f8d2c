"""Enrolment: invitations, approval, consent, and the limits of registration."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from fma_django.accounts.users import change_user, set_member
from fma_django.clients.invitations import create_invitation
from fma_django.clients.registration import Registration, create_client, describe_client
from fma_django.experiments.changes import change_federated_model
from fma_django.models import Client, FederatedModel, Invitation, Organisation
from fma_django.models.round import RoundState
from fma_django.rates import of_this_process
from fma_django.work.sweep import sweep_memory
from tests.api.callers import API, SAFETENSORS, as_client, as_user
from tests.records import (
    WEIGHTS,
    make_aggregate,
    make_client,
    make_model,
    make_user,
    make_user_with,
    send_update,
    weights,
)

pytestmark = pytest.mark.django_db
KEY = "4d8a2f1e-0000-4000-8000-123456789abc"


def register(model: FederatedModel, body: Any = None, **headers: str) -> Any:
    caller = APIClient(raise_request_exception=False, headers=headers)
    return caller.post(f"{API}models/{model.pk}/register_client/", body, format="json")


def admin_of(name: str) -> tuple[Organisation, APIClient, User]:
    organisation = Organisation.objects.create(name=name)
    user = make_user_with(username=f"admin of {name}")
    set_member(organisation, user, Group.objects.get(name="organisation admin"), by=None)
    return organisation, as_user(user), user


def invitation_to(model: FederatedModel, **options: Any) -> str:
    return create_invitation(by=None, models=[model.pk], **options)[1]


# Invitations


def test_an_invitation_that_is_asked_for_twice_is_one(alice: User, model: FederatedModel) -> None:
    caller = as_user(alice)

    def invite(key: str, **changes: Any) -> Any:
        return caller.post(
            f"{API}invitations/", {"models": [model.pk], **changes}, headers={"Idempotency-Key": key}
        )

    first, again = invite(KEY), invite(KEY)

    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert Invitation.objects.count() == 1
    assert register(model, **{"fma-invitation": again.json()["token"]}).status_code == 200
    assert register(model, **{"fma-invitation": again.json()["token"]}).json()["code"] == "invalid_invitation"
    other = invite(f"{KEY}-2").json()
    assert (other["id"], other["token"]) != (first.json()["id"], first.json()["token"])
    changed = invite(KEY, uses=7)
    assert (changed.status_code, changed.json()["code"]) == (422, "idempotency_key_reused")
    assert invite("short").status_code == 400
    Invitation.objects.all().delete()
    assert invite(KEY).json()["code"] == "idempotency_key_expired"


def test_the_same_key_of_somebody_else_is_another_invitation(alice: User, model: FederatedModel) -> None:
    bob = make_user("bob")
    tokens = {
        as_user(user)
        .post(f"{API}invitations/", {"models": [row.pk]}, headers={"Idempotency-Key": KEY})
        .json()["token"]
        for user, row in ((alice, model), (bob, make_model(bob)))
    }
    assert len(tokens) == 2


@pytest.mark.parametrize("policy", ["open", "token", "approval", "jwt", "closed"])
def test_an_invitation_registers_a_client_under_every_policy(
    model: FederatedModel, settings: Settings, policy: str
) -> None:
    settings.FMA_REGISTRATION, settings.FMA_ENROLMENT_TOKEN = policy, "0123456789abcdef"

    answer = register(model, **{"fma-invitation": invitation_to(model)})

    assert answer.status_code == 200
    client = Client.objects.get(pk=answer.json()["id"])
    assert client.is_active
    assert [*client.consented_to.all()] == [model]


def test_a_client_gets_the_organisation_and_the_tags_of_its_invitation(model: FederatedModel) -> None:
    hospital = Organisation.objects.create(name="hospital")
    token = invitation_to(model, organisation=hospital.pk, tags=["gpu", "ward-3"])

    client = Client.objects.get(pk=register(model, **{"fma-invitation": token}).json()["id"])

    assert client.organisation == hospital
    assert sorted(tag.name for tag in client.tags.all()) == ["gpu", "ward-3"]


@pytest.mark.parametrize("kind", ["unknown", "used", "expired", "revoked", "other", "user gone"])
def test_an_invitation_that_does_not_count_registers_nobody(
    model: FederatedModel, settings: Settings, kind: str
) -> None:
    settings.FMA_REGISTRATION = "open"  # a wrong invitation is not forgiven where none is needed
    creator = make_user(staff=True)
    invitation, token = create_invitation(by=creator, models=[model.pk])
    change = {
        "used": {"uses_left": 0},
        "expired": {"expires_on": timezone.now() - timedelta(seconds=1)},
        "revoked": {"revoked_on": timezone.now()},
    }.get(kind)
    if change:
        Invitation.objects.filter(pk=invitation.pk).update(**change)
    if kind == "other":
        invitation.federated_models.set([make_model()])
    if kind == "user gone":
        User.objects.filter(pk=creator.pk).update(is_active=False)

    answer = register(model, **{"fma-invitation": "x" if kind == "unknown" else token})

    assert (answer.status_code, answer.json()["code"]) == (403, "invalid_invitation")
    assert not Client.objects.exists()


def test_an_idempotency_key_answers_the_same_client_without_a_second_use(
    model: FederatedModel, settings: Settings
) -> None:
    settings.FMA_REGISTRATION = "closed"
    headers = {"fma-invitation": invitation_to(model, uses=1), "idempotency-key": KEY}

    first, again = register(model, **headers), register(model, **headers)

    assert first.status_code == again.status_code == 200
    assert first.json() == again.json()
    assert Invitation.objects.get().uses_left == 0
    other = register(model, **{**headers, "idempotency-key": KEY[::-1]})
    assert other.json()["code"] == "invalid_invitation"
    assert Client.objects.count() == 1


def test_one_use_lets_a_client_register_with_all_models_of_the_invitation(
    alice: User, model: FederatedModel, settings: Settings
) -> None:
    settings.FMA_REGISTRATION = "closed"
    second, third = make_model(alice), make_model(alice)
    _, token = create_invitation(by=alice, models=[model.pk, second.pk])
    headers = {"fma-invitation": token}
    headers["client-uuid"] = register(model, **headers).json()["uuid"]

    assert register(second, **headers).status_code == 200
    assert register(second, **headers).status_code == 200
    assert register(third, **headers).json()["code"] == "invalid_invitation"
    assert Invitation.objects.get().uses_left == 0


def test_a_known_client_uses_an_invitation_and_keeps_its_organisation(model: FederatedModel) -> None:
    known = make_client(make_model())
    hospital, other = (Organisation.objects.create(name=name) for name in ("hospital", "other"))
    describe_client(known.client, name="", organisation=hospital, tags=[])
    token = invitation_to(model, organisation=other.pk)

    answer = register(model, **{"fma-invitation": token, "client-uuid": str(known.credential)})

    assert answer.status_code == 200
    known.client.refresh_from_db()
    assert known.client.organisation == hospital
    assert Invitation.objects.get().uses_left == 0


def test_one_use_lets_a_known_client_register_with_all_models_too(settings: Settings) -> None:
    known = make_client(make_model())
    settings.FMA_REGISTRATION = "closed"
    models = [make_model() for _ in range(2)]
    _, token = create_invitation(by=None, models=[model.pk for model in models])
    headers = {"fma-invitation": token, "client-uuid": str(known.credential)}

    assert [register(model, **headers).status_code for model in models] == [200, 200]
    assert Invitation.objects.get().uses_left == 0


@pytest.mark.parametrize("gone", ["user", "organisation"])
def test_a_client_stays_an_invited_one_when_who_invited_it_is_deleted(
    approval: None, alice: User, gone: str
) -> None:
    """Otherwise it would count as approved, and register with any model."""
    first, other = make_model(alice), make_model(alice)
    hospital = Organisation.objects.create(name="hospital")
    inviting = make_user(staff=True)
    _, token = create_invitation(by=inviting, models=[first.pk], organisation=hospital.pk, uses=2)
    credential = register(first, **{"fma-invitation": token}).json()["uuid"]

    User.objects.get(pk=inviting.pk).delete() if gone == "user" else hospital.delete()

    assert Invitation.objects.get().revoked_on is not None
    assert register(first, **{"fma-invitation": token}).json()["code"] == "invalid_invitation"
    assert register(other, **{"client-uuid": credential}).json()["code"] == "registration_closed"


def test_invitations_of_a_user_who_was_away_do_not_count_again(
    owner: APIClient, alice: User, model: FederatedModel
) -> None:
    token = owner.post(f"{API}invitations/", {"models": [model.pk]}).json()["token"]

    for is_active in (False, True):
        alice.is_active = is_active
        alice.save()

    assert register(model, **{"fma-invitation": token}).json()["code"] == "invalid_invitation"


def test_tags_are_for_whoever_may_change_the_clients(owner: APIClient, model: FederatedModel) -> None:
    body = {"models": [model.pk], "tags": ["gpu"]}

    refused = owner.post(f"{API}invitations/", body, format="json")

    assert (refused.status_code, refused.json()["code"]) == (403, "not_permitted")
    assert not Invitation.objects.exists()
    hospital, admin, _ = admin_of("hospital")
    describe_client(make_client(model).client, name="", organisation=hospital, tags=[])
    assert admin.post(f"{API}invitations/", body, format="json").status_code == 201


def lose_the_role(user: User, model: FederatedModel) -> None:
    user.groups.clear()
    user.user_permissions.clear()
    user.memberships.all().delete()


def lose_the_model(user: User, model: FederatedModel) -> None:
    """As its owner transfers it, or takes the organisation's clients out."""
    change_federated_model(model, {"developer": make_user(), "clients": []})


def lose_the_ownership(user: User, model: FederatedModel) -> None:
    make_user(staff=True)
    change_user(user, {"is_owner": False}, by=None)


@pytest.mark.parametrize(
    ("inviting", "lose"),
    [
        ("data scientist", lose_the_role),
        ("data scientist", lose_the_model),
        ("operator", lose_the_role),
        ("owner", lose_the_ownership),
        ("admin of its organisation", lose_the_role),
        ("admin of its organisation", lose_the_model),
    ],
)
def test_an_invitation_ends_with_the_right_to_make_it(
    model: FederatedModel, settings: Settings, inviting: str, lose: Any
) -> None:
    hospital = Organisation.objects.create(name="hospital")
    describe_client(make_client(model).client, name="", organisation=hospital, tags=[])
    if inviting == "admin of its organisation":
        user = make_user_with(username="inviting")
        set_member(hospital, user, Group.objects.get(name="organisation admin"), by=None)
    elif inviting == "owner":
        user = make_user("inviting", staff=True)
    else:
        user = make_user_with(username="inviting", role=inviting)
        change_federated_model(model, {"developer": user})
    settings.FMA_REGISTRATION = "closed"
    token = as_user(user).post(f"{API}invitations/", {"models": [model.pk], "uses": 5}).json()["token"]
    assert register(model, **{"fma-invitation": token}).status_code == 200

    lose(User.objects.get(pk=user.pk), model)

    answer = register(model, **{"fma-invitation": token})
    assert (answer.status_code, answer.json()["code"]) == (403, "invalid_invitation")
    assert Invitation.objects.get().uses_left == 4


def test_a_further_role_ends_no_invitation(owner: APIClient, alice: User, model: FederatedModel) -> None:
    token = owner.post(f"{API}invitations/", {"models": [model.pk]}).json()["token"]

    hospital = Organisation.objects.create(name="hospital")
    set_member(hospital, alice, Group.objects.get(name="organisation admin"), by=None)

    assert register(model, **{"fma-invitation": token}).status_code == 200
    assert Client.objects.get().organisation is None


def test_the_token_is_shown_once_and_kept_as_a_hash(owner: APIClient, model: FederatedModel) -> None:
    made = owner.post(f"{API}invitations/", {"models": [model.pk], "uses": 2}, format="json")

    assert made.status_code == 201
    assert made["Cache-Control"] == "no-store"
    token = made.json()["token"]
    assert made.json()["file"] == {
        "format": 1,
        "server": "http://testserver/",
        "models": [model.pk],
        "token": token,
    }
    assert made.json()["link"] == f"http://testserver/#invitation={token}&models={model.pk}"
    assert register(model, **{"fma-invitation": token}).status_code == 200
    listed = owner.get(f"{API}invitations/").json()
    one = owner.get(f"{API}invitations/{made.json()['id']}/").json()
    assert [row["uses_left"] for row in (*_rows(listed), one)] == [1, 1]
    assert token not in str(listed) + str(one) + str([*Invitation.objects.values()])


def _rows(listed: Any) -> list[Any]:
    return listed if isinstance(listed, list) else listed["results"]


def test_a_deleted_invitation_is_revoked_and_stays_in_the_record(
    owner: APIClient, model: FederatedModel
) -> None:
    made = owner.post(f"{API}invitations/", {"models": [model.pk]}, format="json").json()

    assert owner.delete(f"{API}invitations/{made['id']}/").status_code == 204

    assert register(model, **{"fma-invitation": made["token"]}).json()["code"] == "invalid_invitation"
    assert owner.get(f"{API}invitations/{made['id']}/").json()["revoked_on"] is not None


def test_a_developer_invites_to_own_models_alone(owner: APIClient, model: FederatedModel) -> None:
    body = {"models": [model.pk, make_model().pk]}
    refused = owner.post(f"{API}invitations/", body, format="json")

    missing = owner.post(f"{API}invitations/", {"models": [10**6]}, format="json")
    assert refused.status_code == missing.status_code == 400
    assert refused.json()["detail"].replace(str(body["models"][1]), "N") == missing.json()["detail"].replace(
        str(10**6), "N"
    )
    hospital = Organisation.objects.create(name="hospital")
    preset = {"models": [model.pk], "organisation": hospital.pk}
    assert owner.post(f"{API}invitations/", preset, format="json").status_code == 403


def test_an_organisations_admin_invites_to_its_own_organisation_alone(model: FederatedModel) -> None:
    hospital, admin, _ = admin_of("hospital")
    other = Organisation.objects.create(name="other")
    describe_client(make_client(model).client, name="", organisation=hospital, tags=[])

    made = admin.post(f"{API}invitations/", {"models": [model.pk]}, format="json")

    assert made.json()["organisation"] == hospital.pk
    body = {"models": [model.pk], "organisation": other.pk}
    assert admin.post(f"{API}invitations/", body, format="json").status_code == 403
    unseen = admin.post(f"{API}invitations/", {"models": [make_model().pk]}, format="json")
    assert unseen.status_code == 400


def test_invitations_of_others_are_neither_seen_nor_revoked(model: FederatedModel, owner: APIClient) -> None:
    made = owner.post(f"{API}invitations/", {"models": [model.pk]}, format="json").json()
    stranger = as_user(make_user())
    _, admin, _ = admin_of("hospital")

    for caller in (stranger, admin):
        assert _rows(caller.get(f"{API}invitations/").json()) == []
        assert caller.delete(f"{API}invitations/{made['id']}/").status_code == 404
    auditor = as_user(make_user_with(role="auditor"))
    assert len(_rows(auditor.get(f"{API}invitations/").json())) == 1
    assert auditor.delete(f"{API}invitations/{made['id']}/").status_code == 403


@pytest.mark.parametrize(
    "body",
    [
        {"models": []},
        {"models": [2**70]},
        {"uses": 0},
        {"uses": 10**9},
        {"tags": ["with space"]},
        {"organisation": 10**9},
        {"expires_on": "2001-01-01T00:00:00Z"},
        {"expires_on": "9999-01-01T00:00:00Z"},
        {"use": 3},
    ],
)
def test_what_cannot_be_is_refused(model: FederatedModel, body: dict[str, Any]) -> None:
    staff = as_user(make_user(staff=True))

    answer = staff.post(f"{API}invitations/", {"models": [model.pk], **body}, format="json")

    assert answer.status_code == 400
    assert not Invitation.objects.exists()


# Approval


@pytest.fixture
def approval(settings: Settings) -> None:
    settings.FMA_REGISTRATION = "approval"


@pytest.fixture
def waiting(approval: None, model: FederatedModel) -> Registration:
    answer = register(model).json()
    return Registration(Client.objects.get(pk=answer["id"]), answer["uuid"])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", "me/"),
        ("get", "models/{model}/get_latest_model/"),
        ("get", "models/{model}/rounds/"),
        ("get", "models/{model}/get_latest_aggregate/?after=0"),
        ("post", "models/{model}/join/"),
        ("post", "models/{model}/register_client/"),
        ("post", "model_updates/"),
        ("post", "uploads/?federated_model={model}"),
        ("post", "clients/me/telemetry/"),
    ],
)
def test_a_client_that_waits_is_told_so(
    model: FederatedModel, waiting: Registration, method: str, path: str
) -> None:
    device = as_client(waiting)
    body = {"federated_model": model.pk, "data": weights()} if method == "post" else None

    answer = getattr(device, method)(
        API + path.format(model=model.pk),
        body,
        **({"format": "json"} if method == "post" else {}),
        headers={"Tus-Resumable": "1.0.0", "Upload-Length": "9"},
    )

    assert (answer.status_code, answer.json()["code"]) == (403, "awaiting_approval")


def test_an_invited_client_registers_with_no_model_that_nobody_let_it_into(
    approval: None, alice: User, model: FederatedModel
) -> None:
    headers = {"fma-invitation": invitation_to(make_model(make_user("bob")))}
    invited_to = Invitation.objects.get().federated_models.get()
    known = {"client-uuid": register(invited_to, **headers).json()["uuid"]}

    answer = register(model, **known)

    assert (answer.status_code, answer.json()["code"]) == (403, "registration_closed")
    assert not model.clients.exists()
    assert register(invited_to, **known).status_code == 200
    assert register(model, **known, **{"fma-invitation": invitation_to(model)}).status_code == 200


def test_an_approved_client_registers_with_other_models(
    approval: None, alice: User, waiting: Registration
) -> None:
    as_user(make_user_with(role="operator")).patch(f"{API}clients/{waiting.client.pk}/", {"is_active": True})

    assert register(make_model(alice), **{"client-uuid": str(waiting.credential)}).status_code == 200


def test_a_client_that_waits_gets_no_weights(model: FederatedModel, waiting: Registration) -> None:
    url = f"{API}models/{model.pk}/get_latest_model/"
    answer = as_client(waiting).get(url, HTTP_ACCEPT=SAFETENSORS)

    assert (answer.status_code, answer.json()["code"]) == (403, "awaiting_approval")


def test_a_round_does_not_count_a_client_that_waits(ann: Registration, approval: None, alice: User) -> None:
    model = make_model(alice, requirement="all_clients", allow_aggregation=True)
    two = register(model, **{"client-uuid": str(ann.credential)}).json()
    stranger = register(model).json()["id"]

    send_update(model, Client.objects.get(pk=two["id"]))

    assert model.rounds.get(state=RoundState.COLLECTING).ready_on is not None
    as_user(make_user(staff=True)).patch(f"{API}clients/{stranger}/", {"is_active": True}, format="json")
    assert Client.objects.get(pk=stranger).is_active


def test_an_operator_approves_and_the_client_is_let_in(model: FederatedModel, waiting: Registration) -> None:
    operator = as_user(make_user_with(role="operator"))
    url = f"{API}clients/{waiting.client.pk}/"

    approved = operator.patch(url, {"is_active": True}, format="json").json()

    assert (approved["is_active"], approved["awaits_approval"]) == (True, False)
    assert as_client(waiting).post(f"{API}models/{model.pk}/join/").status_code == 200


def test_a_refused_client_is_never_let_in(model: FederatedModel, waiting: Registration) -> None:
    operator = as_user(make_user_with(role="operator"))
    url = f"{API}clients/{waiting.client.pk}/"
    operator.patch(url, {"is_active": False}, format="json")

    assert as_client(waiting).get(f"{API}me/").status_code == 401
    assert operator.patch(url, {"is_active": True}, format="json").status_code == 400


def test_an_approval_lets_a_round_start_that_waited_for_clients(approval: None, alice: User) -> None:
    model = make_model(alice, round_policy={"quorum": 1, "deadline_s": 60})
    client = register(model).json()["id"]
    assert model.rounds.get().started_on is None

    operator = as_user(make_user_with(role="operator"))
    operator.patch(f"{API}clients/{client}/", {"is_active": True}, format="json")

    assert model.rounds.get().started_on is not None


def test_the_admin_of_the_organisation_that_a_client_names_approves_it(
    approval: None, model: FederatedModel
) -> None:
    _, admin, _ = admin_of("hospital")
    _, other, _ = admin_of("other")
    client = register(model, {"organisation": "hospital"}).json()["id"]
    url, change = f"{API}clients/{client}/", {"is_active": True}

    assert other.patch(url, change, format="json").status_code == 404
    assert not Client.objects.get(pk=client).is_active
    assert admin.patch(url, change, format="json").status_code == 200
    assert Client.objects.get(pk=client).is_active


@pytest.mark.parametrize("role", ["compliance officer", "organisation admin"])
@pytest.mark.parametrize("end", ["waits", "refused"])
def test_a_client_that_nobody_approved_shows_its_organisation_no_model(
    approval: None, alice: User, role: str, end: str
) -> None:
    """Anybody may register one, with any model, and name any organisation."""
    hospital, member = Organisation.objects.create(name="hospital"), make_user_with(username="member")
    set_member(hospital, member, Group.objects.get(name=role), by=None)
    model = make_model(alice, initial_model=WEIGHTS)
    stranger = register(model, {"organisation": "hospital"}).json()["id"]
    if end == "refused":
        root = as_user(make_user(staff=True))
        assert root.patch(f"{API}clients/{stranger}/", {"is_active": False}).status_code == 200
    api = as_user(member)

    for path in ("", "get_latest_model/", "get_current_artifact/", "rounds/", "rounds/1/selection/"):
        assert api.get(f"{API}models/{model.pk}/{path}").status_code == 404, path
    for rows in ("models", "model_artifacts", "model_aggregates", "model_updates", "evaluations"):
        assert api.get(f"{API}{rows}/").json() == [], rows
    invited = api.post(f"{API}invitations/", {"models": [model.pk]}, format="json")
    assert invited.status_code == 400
    [row] = api.get(f"{API}clients/").json()
    # Whoever approves a client must know for which model; its number tells nothing.
    assert (row["id"], row["models"]) == (stranger, [model.pk] if end == "waits" else [])


def test_an_approved_client_shows_its_organisation_the_model(approval: None, model: FederatedModel) -> None:
    _, admin, _ = admin_of("hospital")
    client = register(model, {"organisation": "hospital"}).json()["id"]

    assert admin.patch(f"{API}clients/{client}/", {"is_active": True}, format="json").status_code == 200

    assert admin.get(f"{API}models/{model.pk}/").status_code == 200


def test_a_refused_client_is_no_client_of_its_models_any_more(
    model: FederatedModel, owner: APIClient, waiting: Registration
) -> None:
    operator = as_user(make_user_with(role="operator"))

    operator.patch(f"{API}clients/{waiting.client.pk}/", {"is_active": False}, format="json")

    assert owner.get(f"{API}models/{model.pk}/").json()["clients"] == []
    assert not model.consents.exists()


def test_an_answer_does_not_tell_which_organisations_there_are(approval: None, model: FederatedModel) -> None:
    Organisation.objects.create(name="hospital")

    known, unknown = (register(model, {"organisation": name}) for name in ("hospital", "nowhere"))

    assert known.status_code == unknown.status_code == 200
    assert known.json().keys() == unknown.json().keys()


def test_nobody_names_an_organisation_where_nobody_approves(model: FederatedModel) -> None:
    Organisation.objects.create(name="hospital")

    register(model, {"organisation": "hospital"})

    assert Client.objects.get().organisation is None


def test_a_repeated_registration_waits_as_the_same_client(approval: None, model: FederatedModel) -> None:
    first, again = (register(model, **{"idempotency-key": KEY}) for _ in range(2))

    assert first.json() == again.json()
    assert Client.objects.get().awaits_approval


def test_clients_that_nobody_approved_are_swept(
    ann: Registration, waiting: Registration, settings: Settings, model: FederatedModel
) -> None:
    settings.FMA_APPROVAL_DAYS = 3
    day = timedelta(days=1)
    young = Client.objects.get(pk=register(model).json()["id"])
    Client.objects.exclude(pk=young.pk).update(created_on=timezone.now() - 4 * day)

    sweep_memory()

    assert set(Client.objects.all()) == {young, ann.client}


# Consent


def test_a_public_id_is_not_enough_to_attach_a_client(owner: APIClient, model: FederatedModel) -> None:
    strange = make_client(make_model()).client.pk
    missing = "00000000-0000-4000-8000-000000000000"
    answers = {}
    for client in (str(strange), missing):
        for method, path in (("patch", f"models/{model.pk}/"), ("post", "models/")):
            body = {"name": "m", "aggregator": "mean", "clients": [client]}
            answer = getattr(owner, method)(API + path, body, format="json")
            answers[client, method] = (answer.status_code, answer.content.replace(client.encode(), b"ID"))

    for method in ("patch", "post"):
        assert answers[str(strange), method] == answers[missing, method]
        assert answers[missing, method][0] == 400
    assert model.clients.count() == 0


def test_a_developer_attaches_clients_of_own_models_and_keeps_those_of_this_one(
    owner: APIClient, alice: User, model: FederatedModel, ann: Registration
) -> None:
    other = make_model(alice)
    body = {"clients": [str(ann.client.pk)]}

    assert owner.patch(f"{API}models/{other.pk}/", body, format="json").status_code == 200
    assert owner.patch(f"{API}models/{other.pk}/", body, format="json").status_code == 200
    theirs = make_user_with("fma_django.change_federatedmodel", "fma_django.view_federatedmodel")
    assert as_user(theirs).patch(f"{API}models/{other.pk}/", body, format="json").status_code == 200


def test_whoever_manages_an_organisations_clients_attaches_them(model: FederatedModel) -> None:
    hospital, _, admin = admin_of("hospital")
    admin.user_permissions.set(make_user().user_permissions.all())  # may run experiments
    own = make_model(admin)
    client = make_client(make_model()).client
    describe_client(client, name="", organisation=hospital, tags=[])

    answer = as_user(admin).patch(f"{API}models/{own.pk}/", {"clients": [str(client.pk)]}, format="json")

    assert answer.status_code == 200
    assert sent_by(as_user(admin), own, client).status_code == 201


def test_a_clone_takes_no_clients_that_its_developer_may_not_attach(
    ann: Registration, model: FederatedModel
) -> None:
    scientist = make_user()
    scientist.groups.add(Group.objects.get(name="auditor"))

    made = as_user(scientist).post(f"{API}models/{model.pk}/clone/", {"clients": True}, format="json")

    assert (made.status_code, made.json()["clients"]) == (201, [])


def test_a_developer_sends_only_in_the_name_of_clients_that_consented(
    owner: APIClient, alice: User, model: FederatedModel, ann: Registration
) -> None:
    other = make_model(alice)
    owner.patch(f"{API}models/{other.pk}/", {"clients": [str(ann.client.pk)]}, format="json")

    refused = sent_by(owner, other, ann.client)

    assert (refused.status_code, refused.json()["code"]) == (403, "no_consent")
    assert sent_by(owner, model, ann.client).status_code == 201
    assert register(other, **{"client-uuid": str(ann.credential)}).status_code == 200
    assert sent_by(owner, other, ann.client).status_code == 201


def test_an_update_in_the_name_of_a_strange_client_does_not_tell_that_it_exists(
    owner: APIClient, model: FederatedModel
) -> None:
    strange, missing = make_client(make_model()).client, Client(pk="00000000-0000-4000-8000-000000000000")

    answers = [sent_by(owner, model, client) for client in (strange, missing)]

    assert [answer.status_code for answer in answers] == [400, 400]
    assert answers[0].content == answers[1].content


def test_an_operator_who_attaches_a_client_consents_for_it(model: FederatedModel) -> None:
    client, _ = create_client()
    staff = as_user(make_user(staff=True))
    staff.patch(f"{API}models/{model.pk}/", {"clients": [str(client.pk)]}, format="json")

    assert sent_by(staff, model, client).status_code == 201


def sent_by(caller: APIClient, model: FederatedModel, client: Client) -> Any:
    body = {"federated_model": model.pk, "data": weights(), "client": str(client.pk)}
    return caller.post(f"{API}model_updates/", body, format="json")


# Limits


def test_one_address_registers_so_many_clients(model: FederatedModel, settings: Settings) -> None:
    settings.FMA_REGISTRATION_RATE = (3, 60)

    answers = [register(model) for _ in range(5)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[-1].json()["code"] == "throttled"
    assert 0 < int(answers[-1]["Retry-After"]) <= 21
    uuid = answers[0].json()["uuid"]
    assert register(model, **{"client-uuid": uuid}).status_code == 200  # it is no new one
    of_this_process.forget()
    assert register(model).status_code == 200


def test_a_guessed_invitation_counts_as_a_registration(model: FederatedModel, settings: Settings) -> None:
    settings.FMA_REGISTRATION_RATE = (3, 60)
    uuid = register(model).json()["uuid"]
    other = make_model()

    answers = [register(other, **{"fma-invitation": "x", "client-uuid": uuid}) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [403, 403, 429, 429]


def test_a_full_model_takes_no_more_registrations(model: FederatedModel, settings: Settings) -> None:
    settings.FMA_MAX_CLIENTS_PER_MODEL = 2
    ids = [register(model).json()["uuid"] for _ in range(2)]

    refused = register(model, **{"fma-invitation": invitation_to(model)})

    assert (refused.status_code, refused.json()["code"]) == (409, "model_full")
    assert Client.objects.count() == 2
    assert Invitation.objects.get().uses_left == 1
    assert register(model, **{"client-uuid": ids[0]}).status_code == 200


def test_a_silent_stranger_does_not_stop_an_all_clients_model(alice: User) -> None:
    model = make_model(alice, requirement="all_clients")
    ann, ben = (make_client(model) for _ in range(2))
    make_aggregate(model, ann.client, ben.client)
    make_client(model)  # the stranger

    send_update(model, ann.client)
    assert not is_ready(model)
    send_update(model, ben.client)
    assert is_ready(model)


def test_a_client_that_joins_is_waited_for(alice: User) -> None:
    model = make_model(alice, requirement="all_clients")
    ann = make_client(model)
    make_aggregate(model, ann.client)
    ben = make_client(model)
    as_client(ben).post(f"{API}models/{model.pk}/join/")

    send_update(model, ann.client)

    assert not is_ready(model)
    send_update(model, ben.client)
    assert is_ready(model)


def test_before_the_first_aggregate_every_client_is_waited_for(alice: User) -> None:
    model = make_model(alice, requirement="all_clients")
    ann, _ = (make_client(model) for _ in range(2))

    send_update(model, ann.client)

    assert not is_ready(model)


def is_ready(model: FederatedModel) -> bool:
    return model.rounds.get(state=RoundState.COLLECTING).ready_on is not None
