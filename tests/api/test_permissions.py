"""Permissions: one table for every route and method, and a check that the table has every route."""

from dataclasses import dataclass
from typing import Any

import pytest
from allauth.mfa.totp.internal.auth import TOTP
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.urls import URLPattern, URLResolver, get_resolver
from pytest_django import Settings
from rest_framework.test import APIClient

from fma_core.arrays.codecs.safetensors import encode
from fma_django.accounts.sign_on import bind
from fma_django.accounts.tokens import LOGIN, Limits, create_token, issue_token
from fma_django.accounts.users import set_member
from fma_django.clients.invitations import create_invitation
from fma_django.clients.issuers import add_issuer
from fma_django.clients.registration import revoke_client
from fma_django.models import ApiToken, Client, FederatedModel, Organisation
from fma_django.rates import of_this_process
from fma_django.updates.in_parts import begin_update
from fma_django.updates.intake import UpdateFacts
from tests.api.callers import API, SAFETENSORS, as_client, as_token, as_user
from tests.evaluations import BINARY, counted, open_to
from tests.keys import Key
from tests.records import (
    PASSWORD,
    WEIGHTS,
    arrays,
    make_aggregate,
    make_client,
    make_model,
    make_score,
    make_user,
    make_user_with,
    send_update,
    weights,
)

CALLERS = (
    *("anonymous", "bad", "stranger", "registered", "revoked", "owner", "other", "staff"),
    *("nobody", "operator", "officer", "auditor", "admin", "member"),
)
NOT_OURS = ("admin/", "static/")
PART = "application/offset+octet-stream"
TUS = {"Tus-Resumable": "1.0.0", "Upload-Length": "400", "Upload-Offset": "0"}
ISSUER = "https://idp.example.org"
KEY = {"/api/v1/clients/me/credential/": {"Idempotency-Key": "0123456789abcdef"}}

# One line a route and method; the statuses stand in the order of CALLERS.
TABLE = """
GET    /                                                   302 302 302 302 302 302 302 302  302 302 302 302 302 302
GET    /healthz                                            200 200 200 200 200 200 200 200  200 200 200 200 200 200
GET    /readyz                                             503 503 503 503 503 503 503 503  503 503 503 503 503 503
GET    /api/schema/                                        200 401 200 200 401 200 200 200  200 200 200 200 200 200
GET    /api/docs/                                          200 401 200 200 401 200 200 200  200 200 200 200 200 200
POST   /api-token-auth/                                    200 200 200 200 200 200 200 200  200 200 200 200 200 200
GET    /api/v1/                                            401 401 200 200 401 200 200 200  200 200 200 200 200 200
GET    /api/v1/me/                                         401 401 200 200 401 200 200 200  200 200 200 200 200 200
GET    /api/v1/algorithms/                                 401 401 403 403 401 200 200 200  200 200 200 200 200 200
GET    /api/v1/models/                                     401 401 403 403 401 200 200 200  200 200 200 200 200 200
POST   /api/v1/models/                                     401 401 403 403 401 201 201 201  403 403 403 403 403 403
GET    /api/v1/models/<pk>/                                401 401 403 403 401 200 404 200  404 200 200 200 200 200
PUT    /api/v1/models/<pk>/                                401 401 403 403 401 200 404 200  404 200 403 403 403 404
PATCH  /api/v1/models/<pk>/                                401 401 403 403 401 200 404 200  404 200 403 403 403 404
DELETE /api/v1/models/<pk>/                                401 401 403 403 401 204 404 204  404 403 403 403 403 404
POST   /api/v1/models/<pk>/register_client/                200 403 200 200 403 200 200 200  200 200 200 200 200 200
GET    /api/v1/models/<pk>/get_latest_aggregate/           401 401 403 200 401 200 404 200  404 200 200 200 200 200
GET    /api/v1/models/<pk>/get_current_artifact/           401 401 403 200 401 200 404 200  404 200 200 200 200 200
GET    /api/v1/models/<pk>/get_latest_model/               401 401 403 200 401 200 404 200  404 200 200 200 200 200
POST   /api/v1/models/<pk>/initial_model/                  401 401 403 403 401 409 404 409  404 409 403 403 403 404
GET    /api/v1/models/<pk>/rounds/                         401 401 403 200 401 200 404 200  404 200 200 200 200 200
GET    /api/v1/models/<pk>/rounds/<number>/                401 401 403 200 401 200 404 200  404 200 200 200 200 200
GET    /api/v1/models/<pk>/rounds/<number>/selection/      401 401 403 200 401 200 404 200  404 200 200 200 200 200
POST   /api/v1/models/<pk>/rounds/<number>/cancel/         401 401 403 403 401 409 404 409  404 409 403 403 403 404
POST   /api/v1/models/<pk>/join/                           401 401 403 200 401 403 403 403  403 403 403 403 403 403
POST   /api/v1/models/<pk>/start/                          401 401 403 403 401 200 404 200  404 200 403 403 403 404
POST   /api/v1/models/<pk>/pause/                          401 401 403 403 401 200 404 200  404 200 403 403 403 404
POST   /api/v1/models/<pk>/resume/                         401 401 403 403 401 200 404 200  404 200 403 403 403 404
POST   /api/v1/models/<pk>/cancel/                         401 401 403 403 401 200 404 200  404 200 403 403 403 404
POST   /api/v1/models/<pk>/rewind/                         401 401 403 403 401 201 404 201  404 201 403 403 403 404
POST   /api/v1/models/<pk>/clone/                          401 401 403 403 401 201 404 201  403 403 403 403 403 403
GET    /api/v1/models/<pk>/history/                        401 401 403 403 401 200 404 200  404 200 200 200 200 404
GET    /api/v1/models/<pk>/metrics/                        401 401 403 403 401 200 404 200  404 200 200 200 200 404
GET    /api/v1/models/<pk>/participation/                  401 401 403 403 401 200 404 200  404 200 200 200 200 404
GET    /api/v1/models/<pk>/client_errors/                  401 401 403 403 401 200 404 200  404 200 200 200 200 404
POST   /api/v1/clients/me/credential/                      401 401 201 201 401 403 403 403  403 403 403 403 403 403
POST   /api/v1/clients/me/key/                             401 401 400 400 401 403 403 403  403 403 403 403 403 403
POST   /api/v1/clients/me/telemetry/                       401 401 201 201 401 403 403 403  403 403 403 403 403 403
POST   /api/v1/clients/me/errors/                          401 401 201 201 401 403 403 403  403 403 403 403 403 403
GET    /api/v1/clients/me/speed-test/                      401 401 200 200 401 403 403 403  403 403 403 403 403 403
POST   /api/v1/clients/me/speed-test/                      401 401 200 200 401 403 403 403  403 403 403 403 403 403
GET    /api/v1/clients/                                    401 401 403 403 401 200 200 200  200 200 200 200 200 200
GET    /api/v1/clients/<pk>/                               401 401 403 403 401 200 404 200  404 200 200 200 200 200
PATCH  /api/v1/clients/<pk>/                               401 401 403 403 401 403 403 200  403 200 403 403 200 200
PUT    /api/v1/clients/<pk>/key/                           401 401 403 403 401 403 403 200  403 200 403 403 200 200
GET    /api/v1/clients/<pk>/telemetry/                     401 401 403 403 401 200 404 200  404 200 200 200 200 200
GET    /api/v1/clients/<pk>/errors/                        401 401 403 403 401 200 404 200  404 200 200 200 200 200
GET    /api/v1/clients/<pk>/participation/                 401 401 403 403 401 200 404 200  404 200 200 200 200 200
GET    /api/v1/model_updates/                              401 401 200 200 401 200 200 200  200 200 200 200 200 200
POST   /api/v1/model_updates/                              401 401 403 201 401 201 400 201  400 201 403 403 403 400
GET    /api/v1/model_updates/<pk>/                         401 401 404 200 401 200 404 200  404 200 200 200 200 200
GET    /api/v1/model_updates/<pk>/weights/                 401 401 404 200 401 200 404 200  404 200 200 200 200 200
GET    /api/v1/model_aggregates/                           401 401 200 200 401 200 200 200  200 200 200 200 200 200
GET    /api/v1/model_aggregates/<pk>/                      401 401 404 200 401 200 404 200  404 200 200 200 200 200
PATCH  /api/v1/model_aggregates/<pk>/                      401 401 403 403 401 200 404 200  404 200 403 403 403 403
GET    /api/v1/model_aggregates/<pk>/weights/              401 401 404 200 401 200 404 200  404 200 200 200 200 200
GET    /api/v1/model_aggregates/<pk>/state/                401 401 404 200 401 200 404 200  404 200 200 200 200 200
POST   /api/v1/model_aggregates/<pk>/publish_aggregate/    401 401 403 403 401 201 404 201  404 201 403 403 403 403
GET    /api/v1/model_artifacts/                            401 401 200 200 401 200 200 200  200 200 200 200 200 200
GET    /api/v1/model_artifacts/<pk>/                       401 401 404 200 401 200 404 200  404 200 200 200 200 200
GET    /api/v1/model_artifacts/<pk>/weights/               401 401 404 200 401 200 404 200  404 200 200 200 200 200
GET    /api/v1/client_aggregate_scores/                    401 401 200 200 401 200 200 200  200 200 200 200 200 200
POST   /api/v1/client_aggregate_scores/                    401 401 403 201 401 403 403 403  403 403 403 403 403 403
GET    /api/v1/client_aggregate_scores/<pk>/               401 401 404 200 401 200 404 200  404 200 200 200 200 200
GET    /api/v1/models/<pk>/evaluations/                    401 401 403 403 401 200 404 200  404 200 200 200 200 404
POST   /api/v1/models/<pk>/evaluations/                    401 401 403 403 401 201 404 201  404 201 403 403 403 404
GET    /api/v1/evaluations/                                401 401 200 200 401 200 200 200  200 200 200 200 200 200
GET    /api/v1/evaluations/<pk>/                           401 401 404 200 401 200 404 200  404 200 200 200 200 200
GET    /api/v1/evaluations/<pk>/model/                     401 401 404 200 401 200 404 200  404 200 200 200 200 200
GET    /api/v1/evaluations/<pk>/results/                   401 401 404 200 401 200 404 200  404 200 200 200 200 200
POST   /api/v1/evaluations/<pk>/results/                   401 401 404 201 401 403 403 403  403 403 403 403 403 403
POST   /api/v1/evaluations/<pk>/close/                     401 401 403 403 401 200 404 200  404 200 403 403 403 404
POST   /api/v1/evaluations/<pk>/cancel/                    401 401 403 403 401 200 404 200  404 200 403 403 403 404
POST   /api/v1/uploads/                                    401 401 403 201 401 403 403 403  403 403 403 403 403 403
GET    /api/v1/uploads/<pk>/                               401 401 404 200 401 404 404 404  404 404 404 404 404 404
PATCH  /api/v1/uploads/<pk>/                               401 401 404 204 401 404 404 404  404 404 404 404 404 404
DELETE /api/v1/uploads/<pk>/                               401 401 404 204 401 404 404 404  404 404 404 404 404 404
GET    /api/v1/tokens/                                     401 401 403 403 401 200 200 200  200 200 200 200 200 200
POST   /api/v1/tokens/                                     401 401 403 403 401 201 201 201  201 201 201 201 201 201
DELETE /api/v1/tokens/<pk>/                                401 401 403 403 401 404 404 204  404 404 404 403 204 204
GET    /api/v1/users/                                      401 401 403 403 401 200 200 200  200 200 200 200 200 200
POST   /api/v1/users/                                      401 401 403 403 401 403 403 201  403 403 403 403 201 403
GET    /api/v1/users/<pk>/                                 401 401 403 403 401 404 404 200  404 404 404 200 200 200
PATCH  /api/v1/users/<pk>/                                 401 401 403 403 401 403 403 200  403 403 403 403 200 200
DELETE /api/v1/users/<pk>/                                 401 401 403 403 401 403 403 204  403 403 403 403 403 403
DELETE /api/v1/users/<pk>/second_factor/                   401 401 403 403 401 403 403 204  403 403 403 403 204 204
GET    /api/v1/users/<pk>/accounts/                        401 401 403 403 401 403 403 200  403 403 403 403 200 200
POST   /api/v1/users/<pk>/accounts/                        401 401 403 403 401 403 403 201  403 403 403 403 201 201
DELETE /api/v1/users/<pk>/accounts/<account>/              401 401 403 403 401 403 403 204  403 403 403 403 204 204
GET    /api/v1/roles/                                      401 401 403 403 401 403 403 200  403 403 403 200 200 200
POST   /api/v1/roles/                                      401 401 403 403 401 403 403 201  403 403 403 403 403 403
GET    /api/v1/roles/<pk>/                                 401 401 403 403 401 403 403 200  403 403 403 200 200 200
PATCH  /api/v1/roles/<pk>/                                 401 401 403 403 401 403 403 200  403 403 403 403 403 403
DELETE /api/v1/roles/<pk>/                                 401 401 403 403 401 403 403 204  403 403 403 403 403 403
GET    /api/v1/organisations/                              401 401 403 403 401 200 200 200  200 200 200 200 200 200
POST   /api/v1/organisations/                              401 401 403 403 401 403 403 201  403 201 403 403 403 403
GET    /api/v1/organisations/<pk>/                         401 401 403 403 401 404 404 200  404 200 200 200 200 200
PATCH  /api/v1/organisations/<pk>/                         401 401 403 403 401 403 403 200  403 200 403 403 200 403
DELETE /api/v1/organisations/<pk>/                         401 401 403 403 401 403 403 204  403 403 403 403 403 403
GET    /api/v1/organisations/<pk>/members/                 401 401 403 403 401 403 403 200  403 200 200 200 200 200
POST   /api/v1/organisations/<pk>/members/                 401 401 403 403 401 403 403 200  403 403 403 403 200 400
GET    /api/v1/organisations/<pk>/issuers/                 401 401 403 403 401 404 404 200  404 200 200 200 200 200
POST   /api/v1/organisations/<pk>/issuers/                 401 401 403 403 401 403 403 201  403 201 403 403 201 403
DELETE /api/v1/organisations/<pk>/issuers/<issuer>/        401 401 403 403 401 403 403 204  403 204 403 403 204 204
GET    /api/v1/invitations/                                401 401 403 403 401 200 200 200  200 200 200 200 200 200
POST   /api/v1/invitations/                                401 401 403 403 401 201 400 201  400 201 403 403 201 201
GET    /api/v1/invitations/<pk>/                           401 401 403 403 401 404 404 200  404 200 200 200 200 200
DELETE /api/v1/invitations/<pk>/                           401 401 403 403 401 404 404 204  404 204 403 403 204 204
DELETE /api/v1/organisations/<pk>/members/<user>/          401 401 403 403 401 403 403 204  403 403 403 403 204 204
"""
EXPECTED = {
    (method, path): dict(zip(CALLERS, map(int, statuses), strict=True))
    for method, path, *statuses in (line.split() for line in TABLE.strip().splitlines())
}


@dataclass
class World:
    """A model with one row of everything, and a caller of each kind."""

    model: FederatedModel
    callers: dict[str, APIClient]
    ids: dict[str, int]
    bodies: dict[tuple[str, str], Any]
    client: str
    upload: str
    issuer: int
    account: int

    def url(self, path: str) -> str:
        kind = path.removeprefix(API).split("/")[0]
        pk = {"clients": self.client, "uploads": self.upload}.get(kind, str(self.ids.get(kind, 0)))
        facts = f"?federated_model={self.model.pk}&base_aggregate=0"
        query = facts if path == "/api/v1/uploads/" else ""
        user = str(self.ids["users"])
        values = {"<pk>": pk, "<number>": "1", "<user>": user, "<issuer>": str(self.issuer)}
        values["<account>"] = str(self.account)
        for name, value in values.items():
            path = path.replace(name, value)
        return path + query


@pytest.fixture
def world(db: None, settings: Settings) -> World:
    settings.FMA_OIDC_ISSUER = ISSUER  # or no account is bound
    return make_world()


def make_world(tag: str = "") -> World:
    """A new world. tag: the end of all names that the others have, too."""
    alice = make_user(f"alice{tag}")
    model = make_model(alice, initial_model=WEIGHTS, allow_aggregation=True, optimiser={"name": "fedavgm"})
    registered, revoked = make_client(model), make_client(model)
    aggregate = make_aggregate(model, registered.client)
    update = send_update(model, registered.client, base_aggregate=aggregate)
    scored = make_client(model)
    score = make_score(aggregate, registered.client)
    newer = make_aggregate(model, registered.client, base=aggregate)
    make_score(newer, scored.client)
    make_client(model)  # an evaluation needs three contributors
    evaluation = open_to(model)
    upload = begin_update(model, registered.client, 400, UpdateFacts(base_aggregate_id=newer.pk))
    revoke_client(revoked.client)
    make_model(make_user(f"bob{tag}"))
    member, hospital = (
        make_user_with(username=f"member{tag}"),
        Organisation.objects.create(name=f"hospital{tag}"),
    )
    set_member(hospital, member, Group.objects.get(name="organisation admin"), by=None)
    Client.objects.filter(pk=registered.client.pk).update(organisation=hospital)
    colleague = make_user_with(username=f"colleague{tag}")
    set_member(hospital, colleague, None, by=None)
    role = Group.objects.create(name=f"guest{tag}")
    issuer = add_issuer(hospital, Key().public.hex(), by=None)
    invitation, _ = create_invitation(by=None, models=[model.pk], organisation=hospital.pk)
    callers = {
        "anonymous": APIClient(),
        "bad": APIClient(headers={"client-uuid": "0d3e1c4c-9c39-4d6f-8e9b-3ae8d2a7a3fd"}),
        "stranger": as_client(make_client(make_model())),
        "registered": as_client(registered),
        "revoked": as_client(revoked),
        "owner": as_user(alice),
        "other": as_user(make_user(f"other{tag}")),
        "staff": as_user(make_user(f"staff{tag}", staff=True)),
        "nobody": as_user(make_user_with(username=f"nobody{tag}")),
        "operator": as_user(make_user_with(username=f"operator{tag}", role="operator")),
        "officer": as_user(make_user_with(username=f"officer{tag}", role="compliance officer")),
        "auditor": as_user(make_user_with(username=f"auditor{tag}", role="auditor")),
        "admin": as_user(make_user_with(username=f"admin{tag}", role="organisation admin")),
        "member": as_user(member),
    }
    assert model.current_artifact_id is not None
    change = {"name": "renamed", "aggregator": "mean"}
    update_body = {
        "federated_model": model.pk,
        "data": weights(9.0),
        "client": str(registered.client.pk),
        "base_aggregate": newer.pk,
    }
    bodies: dict[tuple[str, str], Any] = {
        ("POST", "/api-token-auth/"): {"username": alice.username, "password": PASSWORD},
        ("POST", "/api/v1/models/"): change,
        ("PUT", "/api/v1/models/<pk>/"): change,
        ("PATCH", "/api/v1/models/<pk>/"): {"name": "renamed"},
        ("POST", "/api/v1/models/<pk>/initial_model/"): WEIGHTS,
        ("POST", "/api/v1/models/<pk>/rewind/"): {"aggregate": aggregate.pk},
        ("POST", "/api/v1/clients/me/telemetry/"): {"resources": {"battery": 0.5}},
        ("POST", "/api/v1/clients/me/errors/"): {"code": "out_of_memory"},
        ("PATCH", "/api/v1/clients/<pk>/"): {"name": "renamed"},
        ("PUT", "/api/v1/clients/<pk>/key/"): Key().request_file(),
        ("POST", "/api/v1/model_updates/"): update_body,
        ("PATCH", "/api/v1/model_aggregates/<pk>/"): {"validation_score": 1.0},
        ("POST", "/api/v1/model_aggregates/<pk>/publish_aggregate/"): {"version": "2"},
        ("POST", "/api/v1/models/<pk>/evaluations/"): {
            "question": BINARY,
            "artifact": model.current_artifact_id,
        },
        ("POST", "/api/v1/evaluations/<pk>/results/"): {"statistics": counted()},
        ("PATCH", "/api/v1/uploads/<pk>/"): b"a part",
        ("POST", "/api/v1/tokens/"): {"name": "backup", "scope": "read"},
        ("POST", "/api/v1/users/"): {"username": "new"},
        ("PATCH", "/api/v1/users/<pk>/"): {"email": "a@example.org"},
        ("POST", "/api/v1/users/<pk>/accounts/"): {"subject": "s-2"},
        ("POST", "/api/v1/roles/"): {"name": "new"},
        ("PATCH", "/api/v1/roles/<pk>/"): {"name": "renamed"},
        ("POST", "/api/v1/invitations/"): {"models": [model.pk]},
        ("POST", "/api/v1/organisations/"): {"name": "new"},
        ("PATCH", "/api/v1/organisations/<pk>/"): {"name": "renamed"},
        ("POST", "/api/v1/organisations/<pk>/members/"): {"username": alice.username},
        ("POST", "/api/v1/organisations/<pk>/issuers/"): {"public_key": Key().public.hex()},
        ("POST", "/api/v1/client_aggregate_scores/"): {"aggregate": newer.pk, "validation_results": {}},
    }
    issue_token(colleague)
    TOTP.activate(colleague, "A" * 32)
    account = bind(colleague, ISSUER, f"colleague{tag}")
    ids = {
        "tokens": ApiToken.objects.get(user=colleague).pk,
        "models": model.pk,
        "model_updates": update.pk,
        "model_aggregates": aggregate.pk,
        "model_artifacts": model.current_artifact_id,
        "client_aggregate_scores": score.pk,
        "evaluations": evaluation.pk,
        "users": colleague.pk,
        "roles": role.pk,
        "organisations": hospital.pk,
        "invitations": invitation.pk,
    }
    return World(
        model, callers, ids, bodies, str(registered.client.pk), str(upload.pk), issuer.pk, account.pk
    )


@pytest.mark.untraced
def test_who_may(world: World) -> None:
    # One world for all: making it takes a third of a second, and every request is taken back.
    found = {}
    for method, path in EXPECTED:
        of_this_process.forget()  # no login is refused because of the ones before
        found[method, path] = {name: _status(world, name, method, path) for name in CALLERS}

    assert found == EXPECTED


NO_TOKEN_IS_READ = {("POST", "/api-token-auth/"), ("POST", "/api/v1/models/<pk>/register_client/")}
OF_ACCOUNTS = tuple(f"{API}{kind}/" for kind in ("tokens", "users", "roles", "organisations"))
BEYOND_A_MODEL = {
    ("POST", "/api/v1/models/"),
    ("POST", "/api/v1/models/<pk>/clone/"),
    ("PATCH", "/api/v1/clients/<pk>/"),
    ("PUT", "/api/v1/clients/<pk>/key/"),
    ("POST", "/api/v1/invitations/"),
}
NOT_WITH_A_TOKEN_OF_ITS_MODEL = {("DELETE", "/api/v1/invitations/<pk>/")}


@pytest.mark.untraced
def test_a_token_reaches_as_far_as_its_scope(world: World) -> None:
    """The tokens are an owner's, who may do everything; routes and methods are those that Django knows."""
    staff = User.objects.get(username="staff")
    limits = {
        "read": Limits("read"),
        "write": Limits("write"),
        "admin": Limits("admin"),
        "this model": Limits("admin", world.model),
        "another model": Limits("admin", FederatedModel.objects.get(developer__username="bob")),
    }
    for name, reach in limits.items():
        world.callers[name] = as_token(create_token(staff, name, reach)[1])
    found: dict[tuple[str, str], dict[str, int]] = {}
    expected: dict[tuple[str, str], dict[str, int]] = {}
    for path, methods in _routes().items():
        for method in methods & {"GET", "POST", "PUT", "PATCH", "DELETE"} if path != "/" else ():
            of_this_process.forget()
            row = method, path
            found[row] = {name: _status(world, name, method, path) for name in limits}
            expected[row] = {name: _expected_with(name, method, path) for name in limits}

    assert found == expected


def _expected_with(token: str, method: str, path: str) -> int:
    of_user = EXPECTED[method, path]
    if (method, path) in NO_TOKEN_IS_READ:
        return of_user["staff"]
    is_of_accounts = path.startswith(OF_ACCOUNTS)
    if token in ("this model", "another model"):
        if is_of_accounts or (method, path) in BEYOND_A_MODEL:
            return 403
        if token == "this model" and (method, path) in NOT_WITH_A_TOKEN_OF_ITS_MODEL:
            return 403
        return of_user["staff" if token == "this model" else "other"]
    is_change = method != "GET"
    if is_change and (token == "read" or (token == "write" and is_of_accounts)):
        return 403
    return of_user["staff"]


def test_a_token_of_a_model_lists_what_belongs_to_it_alone(world: World) -> None:
    staff = User.objects.get(username="staff")
    other = make_model(make_user("carol"), initial_model=WEIGHTS)
    clients = [make_client(other).client for _ in range(3)]
    make_score(make_aggregate(other, *clients), clients[0])
    open_to(other)
    create_invitation(by=staff, models=[other.pk])
    create_invitation(by=staff, models=[world.model.pk, other.pk])
    models = {"first": world.model, "second": other}
    callers = {
        name: as_token(create_token(staff, name, Limits("read", model))[1]) for name, model in models.items()
    }
    lists = [path for path in _routes() if path.startswith(API) and "<" not in path and path.count("/") == 4]
    kinds = [path for path in lists if ("GET", path) in EXPECTED and not path.startswith(OF_ACCOUNTS)]
    kinds = [path for path in kinds if path not in (f"{API}me/", f"{API}algorithms/")]

    for path in kinds:
        all_rows = {row["id"] for row in world.callers["staff"].get(path, {"page_size": 200}).json()}
        seen = {name: {row["id"] for row in api.get(path).json()} for name, api in callers.items()}
        assert seen["first"], path
        assert seen["second"], path
        assert not seen["first"] & seen["second"], path
        assert seen["first"] | seen["second"] <= all_rows, path
    assert len(kinds) == 8
    for name, api in callers.items():
        assert [row["id"] for row in api.get(f"{API}models/").json()] == [models[name].pk]
    registered = callers["second"].get(f"{API}clients/").json()
    assert {row["id"] for row in registered} == {str(client.pk) for client in clients}
    assert callers["second"].get(f"{API}clients/{world.client}/").status_code == 404
    assert callers["second"].get(f"{API}clients/", {"federated_model": world.model.pk}).json() == []


def test_a_token_of_a_model_takes_no_client_of_another_into_it(world: World) -> None:
    staff, other = User.objects.get(username="staff"), make_model(make_user("carol"))
    api = as_token(create_token(staff, "one", Limits("write", other))[1])
    url, own = f"{API}models/{other.pk}/", make_client(other)

    refused = api.patch(url, {"clients": [str(own.client.pk), world.client]})

    assert refused.status_code == 400
    assert [row["id"] for row in api.get(f"{API}clients/").json()] == [str(own.client.pk)]
    assert api.patch(url, {"clients": []}).status_code == 200
    assert api.patch(url, {"developer": User.objects.get(username="alice").pk}).status_code == 400


def _status(world: World, caller: str, method: str, path: str) -> int:
    with transaction.atomic():  # each caller meets the same world
        answer = world.callers[caller].generic(
            method,
            world.url(path),
            *_body(world.bodies.get((method, path))),
            HTTP_ACCEPT="*/*",
            headers={**TUS, **KEY.get(path, {})},
        )
        if answer.streaming:
            b"".join(answer.streaming_content)  # type: ignore[attr-defined]  # to the end, so that its file is closed
        transaction.set_rollback(True)
    return answer.status_code


def _body(value: Any) -> tuple[bytes, str] | tuple[()]:
    import orjson

    if isinstance(value, bytes):
        return value, PART
    return () if value is None else (orjson.dumps(value), "application/json")


def test_the_table_has_every_route() -> None:
    assert {path for _, path in EXPECTED} == set(_routes())


def test_the_table_has_every_method() -> None:
    found = {
        (method, path)
        for path, methods in _routes().items()
        for method in methods & {"GET", "POST", "PUT", "PATCH", "DELETE"}
    }
    assert {row for row in found if row[1] != "/"} == {row for row in EXPECTED if row[1] != "/"}


def _routes() -> dict[str, set[str]]:
    """Every path that Django knows outside the admin, with its methods."""
    found: dict[str, set[str]] = {}

    def walk(resolver: URLResolver, prefix: str) -> None:
        for pattern in resolver.url_patterns:
            path = prefix + _readable(pattern)
            if path.lstrip("/").startswith(NOT_OURS):
                continue
            if isinstance(pattern, URLResolver):
                walk(pattern, path)
            else:
                found.setdefault(path, set()).update(_methods(pattern))

    walk(get_resolver(), "/")
    return found


def _readable(pattern: URLPattern | URLResolver) -> str:
    import re

    text = str(pattern.pattern).lstrip("^").removesuffix("$").removesuffix("\\Z")
    return re.sub(r"\(\?P<(\w+)>(?:[^()\[\]]|\[[^\]]*\])*\)", r"<\1>", text)


def _methods(pattern: URLPattern) -> set[str]:
    callback: Any = pattern.callback
    if hasattr(callback, "actions"):  # a view set: only what is mapped is answered
        allowed = set(getattr(callback.cls, "http_method_names", ()))
        return {method.upper() for method in callback.actions if method in allowed}
    view = getattr(callback, "view_class", None) or getattr(callback, "cls", None)
    if view is None:
        return {"GET"}
    return {method.upper() for method in ("get", "post", "put", "patch", "delete") if hasattr(view, method)}


@pytest.mark.parametrize("caller", ["stranger", "other"])
def test_lists_are_empty_for_strangers(world: World, caller: str) -> None:
    for kind in world.ids:
        answer = world.callers[caller].get(f"{API}{kind}/")
        assert answer.status_code == EXPECTED["GET", f"{API}{kind}/"][caller]
        if answer.status_code == 200:
            oneself = {"users": [caller], "tokens": [LOGIN]}.get(kind, [])
            shown = "name" if kind == "tokens" else "username"
            assert [row.get(shown) for row in answer.json()] == oneself, kind


@pytest.mark.parametrize("caller", ["stranger", "other"])
def test_details_do_not_tell_what_exists_from_what_does_not(world: World, caller: str) -> None:
    api = world.callers[caller]
    for kind, pk in world.ids.items():
        theirs, missing = api.get(f"{API}{kind}/{pk}/"), api.get(f"{API}{kind}/{10**6}/")
        # Each names the id that was asked for, and nothing else differs.
        asked = missing.content.replace(str(10**6).encode(), str(pk).encode())
        assert (theirs.status_code, theirs.content) == (missing.status_code, asked), kind


def test_a_refused_body_is_not_read(world: World) -> None:
    body = encode(arrays())
    url = f"{API}model_updates/?federated_model={world.model.pk}"

    answer = world.callers["stranger"].generic("POST", url, body, SAFETENSORS)

    assert answer.status_code == 403
    assert answer.wsgi_request.read() == body


def test_a_credential_of_a_user_does_not_help_a_bad_client(world: World) -> None:
    token = issue_token(User.objects.get(username="alice"))
    both = APIClient(headers={"authorization": f"Token {token}", "client-uuid": "nonsense"})

    assert both.get(f"{API}me/").status_code == 401


def test_anonymous_gets_401_whether_or_not_the_object_exists(world: World) -> None:
    api = world.callers["anonymous"]
    assert {api.get(f"{API}{kind}/{10**6}/").status_code for kind in world.ids} == {401}
