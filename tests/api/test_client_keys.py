"""The keys of clients: added once, replaced by operators alone, signed by organisations."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient
from structlog.testing import capture_logs

from fma_core.identity.possession import prove_key
from fma_django.accounts.users import set_member
from fma_django.clients.credentials import give_next_credential
from fma_django.clients.invitations import create_invitation
from fma_django.clients.issuers import add_issuer, revoke_issuer, valid_issuers
from fma_django.clients.keys import put_key, sent_key
from fma_django.clients.registration import Registration, find_client
from fma_django.models import Client, FederatedModel, Issuer, Organisation
from tests.api.callers import API, as_client, as_user
from tests.keys import REGISTRATION_KEY, Key
from tests.records import make_client, make_model, make_user, make_user_with

pytestmark = pytest.mark.django_db
HEADERS = {"idempotency-key": REGISTRATION_KEY}


def register(model: FederatedModel, body: Any = None, **headers: str) -> Any:
    caller = APIClient(raise_request_exception=False, headers={**HEADERS, **headers})
    return caller.post(f"{API}models/{model.pk}/register_client/", body, format="json")


def add(registration: Registration, body: Any) -> Any:
    return as_client(registration).post(f"{API}clients/me/key/", body, format="json")


def key_of(client: Client) -> str | None:
    return Client.objects.values_list("public_key", flat=True).get(pk=client.pk)


@pytest.fixture
def model() -> FederatedModel:
    return make_model()


@pytest.fixture
def key() -> Key:
    return Key()


@pytest.fixture
def hospital() -> Organisation:
    return Organisation.objects.create(name="hospital")


@pytest.fixture
def issuer(hospital: Organisation) -> Key:
    issuing = Key()
    add_issuer(hospital, issuing.public.hex(), by=None)
    return issuing


# At registration


@pytest.mark.parametrize("policy", ["open", "approval", "invitation"])
def test_a_client_registers_with_a_key(
    model: FederatedModel, key: Key, settings: Settings, policy: str
) -> None:
    headers = {}
    if policy == "invitation":
        settings.FMA_REGISTRATION = "closed"
        headers["fma-invitation"] = create_invitation(by=None, models=[model.pk])[1]
    else:
        settings.FMA_REGISTRATION = policy

    answer = register(model, key.at_registration(), **headers)

    assert answer.status_code == 200, answer.content
    assert answer.json()["public_key"] == key.public.hex()
    client = Client.objects.get(pk=answer.json()["id"])
    assert client.public_key == key.public.hex()
    assert client.key_added_on is not None


def test_clients_without_a_key_register_as_before(model: FederatedModel) -> None:
    for body, content_type in ((None, "application/json"), (b"x", "text/plain"), (b"[]", "application/json")):
        answer = APIClient(raise_request_exception=False).generic(
            "POST", f"{API}models/{model.pk}/register_client/", body or b"", content_type=content_type
        )

        assert answer.status_code == 200, answer.content
        assert answer.json()["public_key"] is None


def test_a_repeated_registration_answers_the_same(model: FederatedModel, key: Key) -> None:
    first, second = (register(model, key.at_registration()).json() for _ in range(2))

    assert first == second
    assert Client.objects.count() == 1


def test_a_repeated_registration_does_not_change_the_key(model: FederatedModel, key: Key) -> None:
    client = register(model, key.at_registration()).json()["id"]

    answer = register(model, Key().at_registration())

    assert (answer.status_code, answer.json()["code"]) == (409, "client_has_key")
    assert Client.objects.get().public_key == key.public.hex()
    assert str(Client.objects.get().pk) == client


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"key_proof": None}, 400, "invalid_value"),
        ({"public_key": None}, 400, "invalid_value"),
        ({"key_proof": "00"}, 403, "invalid_signature"),
        ({"key_proof": "00" * 64}, 403, "invalid_signature"),
        ({"public_key": "00" * 32}, 400, "invalid_key"),
        ({"public_key": "AB" * 32}, 400, "invalid_key"),
        ({"public_key": ["ab"]}, 400, "invalid_key"),
        ({"public_key": Key().public.hex()}, 403, "invalid_signature"),
        ({"certificate": {}}, 422, "invalid_certificate"),
        ({"certificate": "x"}, 422, "invalid_certificate"),
    ],
)
def test_a_wrong_key_registers_nobody(
    model: FederatedModel, key: Key, change: dict[str, Any], status: int, code: str
) -> None:
    answer = register(model, key.at_registration() | change)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert not Client.objects.exists()


def test_a_proof_is_for_one_registration(model: FederatedModel, key: Key) -> None:
    answer = register(model, key.at_registration("another-key-of-16-characters"))

    assert (answer.status_code, answer.json()["code"]) == (403, "invalid_signature")


@pytest.mark.parametrize("server", ["relay.example.org", "", "testserver.example.org", "*", ".example.org"])
def test_a_proof_for_another_server_counts_nowhere(
    model: FederatedModel, key: Key, settings: Settings, server: str
) -> None:
    """One that the client has called passes its proof on."""
    settings.ALLOWED_HOSTS = ["testserver", ".example.org"]
    registration = make_client(model)
    answers = [
        register(model, key.at_registration(server=server)),
        add(registration, key.of_client(registration.client, server=server)),
    ]

    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (403, "invalid_signature")
        assert "the server 'testserver'" in answer.json()["detail"]
    assert not Client.objects.exclude(public_key=None).exists()


@pytest.mark.parametrize(
    ("host", "proved", "status"),
    [
        ("FMA.example.org:8443", "fma.example.org", 200),
        # A proxy has put its own name into the request; the one that clients call is in the list.
        ("inner:8000", "fma.example.org", 200),
        ("a.clinic.org", "a.clinic.org", 200),
        ("inner", "inner", 200),
        ("inner", "a.clinic.org", 403),
        ("[2001:db8::1]:8000", "[2001:db8::1]", 200),
    ],
)
def test_a_proof_is_for_a_name_of_the_server(
    model: FederatedModel, key: Key, settings: Settings, host: str, proved: str, status: int
) -> None:
    settings.ALLOWED_HOSTS = ["fma.example.org", "inner", "[2001:db8::1]", ".clinic.org"]

    answer = register(model, key.at_registration(server=proved), host=host)

    assert answer.status_code == status, answer.content


def test_a_key_needs_an_idempotency_key(model: FederatedModel, key: Key) -> None:
    answer = APIClient().post(
        f"{API}models/{model.pk}/register_client/", key.at_registration(), format="json"
    )

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_value")
    assert not Client.objects.exists()


def test_two_clients_have_two_keys(model: FederatedModel, key: Key) -> None:
    register(model, key.at_registration())
    other = "ffffffff-0000-4000-8000-123456789abc"

    answer = register(model, key.at_registration(other), **{"idempotency-key": other})

    assert (answer.status_code, answer.json()["code"]) == (409, "key_taken")
    assert Client.objects.count() == 1


# Later


def test_a_client_adds_its_key_once(model: FederatedModel, key: Key) -> None:
    registration = make_client(model)
    for _ in range(2):
        answer = add(registration, key.of_client(registration.client))

        assert answer.status_code == 200, answer.content
        assert answer.json()["fingerprint"].startswith("SHA256:")
        assert answer.json()["certificate"] is None
    assert key_of(registration.client) == key.public.hex()


def test_a_stolen_credential_does_not_change_the_key(model: FederatedModel, key: Key) -> None:
    registration, stolen = make_client(model), Key()
    add(registration, key.of_client(registration.client))

    answer = add(registration, stolen.of_client(registration.client))
    assert (answer.status_code, answer.json()["code"]) == (409, "client_has_key")
    credential = {"client-uuid": str(registration.credential)}
    answer = register(model, stolen.at_registration(), **credential)
    assert (answer.status_code, answer.json()["code"]) == (409, "client_has_key")
    answer = register(make_model(), stolen.at_registration(), **credential)
    assert (answer.status_code, answer.json()["code"]) == (409, "client_has_key")
    answer = as_client(registration).put(
        f"{API}clients/{registration.client.pk}/key/", stolen.request_file(), format="json"
    )
    assert answer.status_code == 403

    assert key_of(registration.client) == key.public.hex()


def test_a_proof_for_another_client_or_purpose_adds_nothing(model: FederatedModel, key: Key) -> None:
    registration, other = make_client(model), make_client(model)
    for body in (
        key.of_client(other.client),
        key.at_registration(str(registration.client.pk)),
        key.request_file(),
    ):
        body.pop("format", None)

        answer = add(registration, body)

        assert (answer.status_code, answer.json()["code"]) == (403, "invalid_signature")
    assert key_of(registration.client) is None


def test_the_key_of_another_client_is_refused(model: FederatedModel, key: Key) -> None:
    first, second = make_client(model), make_client(model)
    add(first, key.of_client(first.client))

    answer = add(second, key.of_client(second.client))

    assert (answer.status_code, answer.json()["code"]) == (409, "key_taken")
    assert key_of(second.client) is None


def test_a_rotation_keeps_the_key(model: FederatedModel, key: Key) -> None:
    registration = make_client(model)
    add(registration, key.of_client(registration.client))

    rotated = find_client(str(give_next_credential(registration.client).credential))

    assert rotated.public_key == key.public.hex()


# By operators


def test_an_operator_replaces_a_key_by_the_request_file(model: FederatedModel, key: Key) -> None:
    registration, operator, new = make_client(model), as_user(make_user_with(role="operator")), Key()
    url = f"{API}clients/{registration.client.pk}/key/"
    add(registration, key.of_client(registration.client))

    with capture_logs() as logs:
        answer = operator.put(url, new.request_file(), format="json")

    assert answer.status_code == 200, answer.content
    assert key_of(registration.client) == new.public.hex()
    [line] = [line for line in logs if line["event"] == "client_key_replaced"]
    assert line["fingerprint"] == answer.json()["fingerprint"] != line["before"]
    assert line["by"].startswith("user")
    # The device goes on with the new one.
    assert add(registration, new.of_client(registration.client)).status_code == 200
    assert add(registration, key.of_client(registration.client)).status_code == 409


def test_a_request_that_its_client_has_not_signed_replaces_nothing(model: FederatedModel, key: Key) -> None:
    registration, operator = make_client(model), as_user(make_user_with(role="operator"))
    url = f"{API}clients/{registration.client.pk}/key/"

    answer = operator.put(url, key.of_client(registration.client), format="json")

    assert (answer.status_code, answer.json()["code"]) == (403, "invalid_signature")


# Certificates


def test_a_certificate_comes_with_the_registration(model: FederatedModel, key: Key, issuer: Key) -> None:
    certificate = issuer.certify(key)

    answer = register(model, key.at_registration(certificate=certificate.to_json()))

    assert answer.status_code == 200, answer.content
    shown = as_user(model.developer).get(f"{API}clients/{answer.json()['id']}/").json()["key"]
    assert shown["public_key"] == key.public.hex()
    assert shown["certificate"] == {
        "organisation": "hospital",
        "label": "scanner",
        "issuer": Issuer.objects.get().fingerprint,
        "not_before": shown["certificate"]["not_before"],
        "not_after": shown["certificate"]["not_after"],
        "state": "valid",
    }
    assert shown["certificate"]["not_after"].endswith("Z")


def test_a_certificate_comes_later_and_is_renewed(model: FederatedModel, key: Key, issuer: Key) -> None:
    registration = make_client(model)
    for label in ("", "old", "new"):
        certificate = issuer.certify(key, label=label).to_json() if label else None

        answer = add(registration, key.of_client(registration.client, certificate=certificate))

        assert answer.status_code == 200, answer.content
        assert (answer.json()["certificate"] or {}).get("label", "") == label
    # The same key without one leaves it as it is.
    assert add(registration, key.of_client(registration.client)).json()["certificate"]["label"] == "new"


def test_a_certificate_that_proves_nothing_is_refused(
    model: FederatedModel, key: Key, issuer: Key, hospital: Organisation
) -> None:
    registration, stranger = make_client(model), Key()
    forged = issuer.certify(key).to_json() | {"label": "other"}
    revoked, expired = Key(), Key()
    revoke_issuer(add_issuer(hospital, revoked.public.hex(), by=None), by=None)
    add_issuer(hospital, expired.public.hex(), expires_on=timezone.now() + timedelta(days=1), by=None)
    Issuer.objects.filter(public_key=expired.public.hex()).update(expires_on=timezone.now())
    for certificate, reason in (
        (issuer.certify(Key()).to_json(), "is for the key"),
        (stranger.certify(key).to_json(), "not trusted here"),
        (revoked.certify(key).to_json(), "not trusted here"),
        (expired.certify(key).to_json(), "not trusted here"),
        (issuer.certify(key, days=-0.5).to_json(), "has expired"),
        (issuer.certify(key, age_days=-1).to_json(), "not valid yet"),
        (forged, "signature of the certificate is wrong"),
    ):
        answer = add(registration, key.of_client(registration.client, certificate=certificate))

        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_certificate")
        assert reason in answer.json()["detail"]
    assert key_of(registration.client) is None


@pytest.mark.parametrize("name", ["Charité", "Hospital", "hospital ", "other"])
def test_a_certificate_in_the_name_of_another_organisation_is_refused(
    model: FederatedModel, key: Key, issuer: Key, name: str
) -> None:
    registration, operator = make_client(model), as_user(make_user_with(role="operator"))
    Organisation.objects.create(name="other")
    certificate = issuer.certify(key, organisation=name).to_json()
    answers = [
        add(registration, key.of_client(registration.client, certificate=certificate)),
        register(model, key.at_registration(certificate=certificate)),
        operator.put(
            f"{API}clients/{registration.client.pk}/key/",
            key.request_file(certificate=certificate),
            format="json",
        ),
    ]

    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_certificate")
        assert f"names the organisation {name!r}" in answer.json()["detail"]
        assert "is the key of 'hospital'" in answer.json()["detail"]
    assert not Client.objects.exclude(public_key=None).exists()


def test_a_certificate_stays_right_when_its_organisation_is_renamed(
    model: FederatedModel, key: Key, issuer: Key, hospital: Organisation
) -> None:
    registration, owner = make_client(model), as_user(model.developer)
    body = key.of_client(registration.client, certificate=issuer.certify(key).to_json())
    add(registration, body)
    Organisation.objects.filter(pk=hospital.pk).update(name="clinic")

    # A client sends its certificate at each start.
    assert add(registration, body).status_code == 200
    [shown] = owner.get(f"{API}clients/").json()
    certificate = shown["key"]["certificate"]
    assert (certificate["organisation"], certificate["state"]) == ("clinic", "valid")
    other = key.of_client(registration.client, certificate=issuer.certify(key, label="other").to_json())
    assert "is the key of 'clinic'" in add(registration, other).json()["detail"]


def test_a_certificate_of_another_organisation_is_refused(
    model: FederatedModel, key: Key, issuer: Key
) -> None:
    registration = make_client(model)
    other = Organisation.objects.create(name="other")
    Client.objects.filter(pk=registration.client.pk).update(organisation=other)

    answer = add(registration, key.of_client(registration.client, certificate=issuer.certify(key).to_json()))

    assert "another organisation" in answer.json()["detail"]


def test_a_key_that_is_replaced_meanwhile_gets_no_certificate_of_the_former(
    model: FederatedModel, key: Key, issuer: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    registration, new = make_client(model), Key()
    add(registration, key.of_client(registration.client))
    sent = sent_key(new.request_file())
    assert sent is not None

    def replaced_meanwhile() -> Any:
        put_key(Client.objects.get(pk=registration.client.pk), sent)
        return valid_issuers()

    monkeypatch.setattr("fma_django.clients.keys.valid_issuers", replaced_meanwhile)
    answer = add(registration, key.of_client(registration.client, certificate=issuer.certify(key).to_json()))

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_certificate")
    # In one transaction here, so that the replacement is undone, too; certificate and key never differ.
    client = Client.objects.get(pk=registration.client.pk)
    assert client.certificate is None


def test_the_list_says_what_a_certificate_is_worth_now(model: FederatedModel, key: Key, issuer: Key) -> None:
    registration, owner = make_client(model), as_user(model.developer)
    add(registration, key.of_client(registration.client, certificate=issuer.certify(key).to_json()))
    [entered], client = Issuer.objects.all(), Client.objects.filter(pk=registration.client.pk)

    def state() -> str:
        [shown] = owner.get(f"{API}clients/").json()
        return str(shown["key"]["certificate"]["state"])

    assert state() == "valid"
    client.update(organisation=Organisation.objects.create(name="other"))
    assert state() == "of another organisation"
    client.update(certificate=issuer.certify(key, days=-0.5).to_json())
    assert state() == "expired"
    Issuer.objects.update(expires_on=timezone.now())
    assert state() == "issuer expired"
    revoke_issuer(entered, by=None)
    assert state() == "issuer revoked"
    Issuer.objects.all().delete()
    assert state() == "issuer unknown"
    assert owner.get(f"{API}clients/").json()[0]["key"]["certificate"]["organisation"] is None


def test_the_list_of_clients_takes_as_many_queries_with_keys(model: FederatedModel, issuer: Key) -> None:
    owner, counts = as_user(model.developer), []
    for _ in range(2):
        for _ in range(3):
            key, registration = Key(), make_client(model)
            add(registration, key.of_client(registration.client, certificate=issuer.certify(key).to_json()))
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert owner.get(f"{API}clients/").status_code == 200
        counts.append(len(queries))

    assert counts[0] == counts[1]


# Issuers


def test_an_operator_enters_the_keys_of_an_organisation_and_its_admin_revokes_them(
    hospital: Organisation, key: Key
) -> None:
    user = make_user_with(username="admin")
    set_member(hospital, user, Group.objects.get(name="organisation admin"), by=None)
    operator = as_user(make_user_with(username="operator", role="operator"))
    admin, url = as_user(user), f"{API}organisations/{hospital.pk}/issuers/"

    # Otherwise an admin could enter the key of another organisation, which is then taken.
    refused = admin.post(url, {"public_key": key.public.hex()}, format="json")
    added = operator.post(url, {"public_key": key.public.hex()}, format="json")
    second = operator.post(url, {"public_key": Key().public.hex()}, format="json")
    revoked = admin.delete(f"{url}{added.json()['id']}/")

    assert (refused.status_code, added.status_code) == (403, 201)
    assert (second.status_code, revoked.status_code) == (201, 204)
    listed = admin.get(url).json()
    assert [issuer["revoked_on"] is None for issuer in listed] == [False, True]
    assert listed[0]["fingerprint"].startswith("SHA256:")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"public_key": "00" * 32}, 400, "invalid_key"),
        ({"public_key": "x"}, 400, "invalid_key"),
        ({}, 400, "invalid"),
        ({"public_key": Key().public.hex(), "expires_on": "2001-01-01T00:00:00Z"}, 400, "invalid_value"),
        ({"public_key": Key().public.hex(), "more": 1}, 400, "invalid"),
    ],
)
def test_a_wrong_issuer_is_refused(hospital: Organisation, body: Any, status: int, code: str) -> None:
    answer = as_user(make_user(staff=True)).post(
        f"{API}organisations/{hospital.pk}/issuers/", body, format="json"
    )

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert not Issuer.objects.exists()


def test_an_issuer_belongs_to_one_organisation(hospital: Organisation, issuer: Key) -> None:
    other = Organisation.objects.create(name="other")

    answer = as_user(make_user(staff=True)).post(
        f"{API}organisations/{other.pk}/issuers/", {"public_key": issuer.public.hex()}, format="json"
    )

    assert (answer.status_code, answer.json()["code"]) == (409, "key_taken")


def test_a_revocation_outlives_its_organisation(
    model: FederatedModel, hospital: Organisation, issuer: Key, key: Key
) -> None:
    registration, certificate = make_client(model), issuer.certify(key).to_json()
    add(registration, key.of_client(registration.client, certificate=certificate))
    operator = as_user(make_user(staff=True))
    [revoked], url = Issuer.objects.all(), f"{API}organisations/"
    assert operator.delete(f"{url}{hospital.pk}/issuers/{revoked.pk}/").status_code == 204
    assert operator.delete(f"{url}{hospital.pk}/").status_code == 204
    place = operator.post(url, {"name": "hospital"}, format="json").json()["id"]

    answer = operator.post(f"{url}{place}/issuers/", {"public_key": issuer.public.hex()}, format="json")

    assert (answer.status_code, answer.json()["code"]) == (409, "key_taken")
    assert "was revoked, for good" in answer.json()["detail"]
    assert operator.get(f"{url}{place}/issuers/").json() == []
    [shown] = operator.get(f"{API}clients/").json()
    assert shown["key"]["certificate"]["state"] == "issuer revoked"
    assert shown["key"]["certificate"]["organisation"] is None
    answer = add(registration, key.of_client(registration.client, certificate=certificate))
    assert "not trusted here" in answer.json()["detail"]


def test_an_issuer_that_was_not_revoked_may_come_back_with_its_organisation(
    model: FederatedModel, hospital: Organisation, issuer: Key, key: Key
) -> None:
    registration, certificate = make_client(model), issuer.certify(key).to_json()
    body = key.of_client(registration.client, certificate=certificate)
    add(registration, body)
    operator = as_user(make_user(staff=True))

    def state() -> str:
        return str(operator.get(f"{API}clients/").json()[0]["key"]["certificate"]["state"])

    hospital.delete()
    assert state() == "issuer unknown"
    assert "not trusted here" in add(registration, body).json()["detail"]
    other = Organisation.objects.create(name="other")
    add_issuer(other, issuer.public.hex(), by=None)
    assert state() == "issuer unknown", "it was kept for the organisation that is gone"
    assert "is the key of 'other'" in add(registration, body).json()["detail"]


def test_an_issuer_is_revoked_in_its_organisation_only(hospital: Organisation, issuer: Key) -> None:
    other = Organisation.objects.create(name="other")
    user = make_user_with(username="admin")
    set_member(other, user, Group.objects.get(name="organisation admin"), by=None)

    for organisation in (other, hospital):
        answer = as_user(user).delete(
            f"{API}organisations/{organisation.pk}/issuers/{Issuer.objects.get().pk}/"
        )

        assert answer.status_code == 404
    assert Issuer.objects.get().revoked_on is None


def test_a_proof_made_by_hand_is_what_the_page_says(model: FederatedModel) -> None:
    """The bytes of docs/reference/signatures.md, without the code that makes them."""
    key = Key()
    values = (b"fma 1 client key", b"registration", b"testserver", REGISTRATION_KEY.encode(), key.public)
    signed = b"".join(len(value).to_bytes(4, "big") + value for value in values)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    proof = Ed25519PrivateKey.from_private_bytes(key.private).sign(signed)

    assert proof == prove_key(key.private, "registration", REGISTRATION_KEY, server="testserver")
    body = {"public_key": key.public.hex(), "key_proof": proof.hex()}
    assert register(model, body).status_code == 200
