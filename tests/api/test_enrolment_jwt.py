"""Clients enrol with a JWT of the operator's identity provider, and with nothing that only looks like one."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from django.conf import LazySettings
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from rest_framework.test import APIClient

from fma_django.clients import jwks
from fma_django.clients.enrolment_jwt import verified
from fma_django.clients.registration import create_client, revoke_client
from fma_django.errors import InvalidEnrolmentJwt
from fma_django.models import Client, Organisation
from fma_django.rates import of_this_process
from tests.keys import REGISTRATION_KEY, Key
from tests.records import make_model
from tests.servers.certificates import Authority
from tests.servers.https import Answer, HttpsServer

pytestmark = pytest.mark.django_db

ISSUER, AUDIENCE = "https://idp.example.org/realms/hospitals", "fma"
ALGORITHMS = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}
KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def public(algorithm: str, key: Any = None, **members: Any) -> dict[str, Any]:
    """The JSON Web Key of a public key."""
    algorithms: Any = ALGORITHMS
    shown = algorithms[algorithm].to_jwk((key or KEYS[algorithm]).public_key(), as_dict=True)
    return {**shown, "kid": algorithm, **members}


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good token, with changes; None takes one out."""
    now = int(time.time())
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "scanner-1", "iat": now, "exp": now + 300}
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def token(algorithm: str = "RS256", *, key: Any = None, headers: Any = None, **changes: Any) -> str:
    return jwt.encode(
        claims(**changes), key or KEYS[algorithm], algorithm, headers={"kid": algorithm, **(headers or {})}
    )


def by_hand(header: dict[str, Any], payload: dict[str, Any], sign: Any = lambda said: b"") -> str:
    """A token that no library would make."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, payload)]
    said = b".".join(parts)
    return (said + b"." + base64.urlsafe_b64encode(sign(said)).rstrip(b"=")).decode()


@pytest.fixture(autouse=True)
def provider(settings: LazySettings, tmp_path: Path) -> Iterator[Path]:
    """The file of the provider's keys."""
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [public(algorithm) for algorithm in KEYS]}))
    settings.FMA_REGISTRATION, settings.FMA_JWKS = "jwt", str(file)
    settings.FMA_JWT_ISSUER, settings.FMA_JWT_AUDIENCE = ISSUER, AUDIENCE
    settings.FMA_LOGIN_RATE = (1000, 60)
    jwks.of.cache_clear()
    yield file
    jwks.of.cache_clear()


def enrol(said: str | None, model: Any = None, **headers: str) -> Any:
    if said is not None:
        headers["Authorization"] = f"Bearer {said}"
    model = model or make_model()
    return APIClient().post(f"/api/v1/models/{model.pk}/register_client/", headers=headers)


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_signed_token_enrols(algorithm: str) -> None:
    answer = enrol(token(algorithm))

    assert answer.status_code == 200, answer.content
    assert Client.objects.get(pk=answer.json()["id"]).name == "scanner-1"


def test_the_same_subject_is_the_same_client_of_every_model() -> None:
    model = make_model()
    once, again = enrol(token(), model).json(), enrol(token("ES256"), model).json()
    elsewhere, another = enrol(token()).json(), enrol(token(sub="scanner-2"), model).json()

    assert once == again == elsewhere
    assert another["uuid"] != once["uuid"]
    assert Client.objects.count() == 2


def test_a_client_with_a_jwt_has_consented() -> None:
    model = make_model()
    client = Client.objects.get(pk=enrol(token()).json()["id"])
    model.clients.add(client)  # as a developer does it

    enrol(token(), model)

    assert [*model.consents.all()] == [client]


def test_a_full_model_takes_no_more_clients_with_a_jwt(settings: LazySettings) -> None:
    settings.FMA_MAX_CLIENTS_PER_MODEL = 1
    model = make_model()
    once = enrol(token(), model).json()

    refused = enrol(token(sub="scanner-2"), model)

    assert (refused.status_code, refused.json()["code"]) == (409, "model_full")
    settings.FMA_MAX_CLIENTS_PER_MODEL = 0
    assert enrol(token(sub="scanner-2"), model).status_code == 200
    settings.FMA_MAX_CLIENTS_PER_MODEL = 1
    assert enrol(token(), model).json() == once


def test_one_network_registers_so_many_clients_with_a_jwt(settings: LazySettings) -> None:
    of_this_process.forget()
    settings.FMA_REGISTRATION_RATE = (2, 60)
    model = make_model()

    def from_address(address: str, sub: str) -> int:
        headers = {"Authorization": f"Bearer {token(sub=sub)}"}
        url = f"/api/v1/models/{model.pk}/register_client/"
        return APIClient(REMOTE_ADDR=address).post(url, headers=headers).status_code

    answers = [from_address(f"2001:db8::{host}", f"scanner-{host}") for host in range(1, 4)]

    assert answers == [200, 200, 429]
    assert from_address("2001:db8:0:1::1", "scanner-3") == 200


def test_another_issuer_has_other_clients(settings: LazySettings) -> None:
    ours = enrol(token()).json()
    settings.FMA_JWT_ISSUER = "https://other.example"

    theirs = enrol(token(iss="https://other.example")).json()

    assert theirs["id"] != ours["id"]


def test_organisation_and_tags_come_from_the_claims_that_the_operator_names(settings: LazySettings) -> None:
    settings.FMA_JWT_ORGANISATION_CLAIM, settings.FMA_JWT_TAGS_CLAIM = "hospital", "groups"
    ours = Organisation.objects.create(name="Charité")

    made = enrol(token(hospital="Charité", groups=["mri", "berlin"], organisation="x", tags=["y"])).json()

    client = Client.objects.get(pk=made["id"])
    assert client.organisation == ours
    assert sorted(tag.name for tag in client.tags.all()) == ["berlin", "mri"]


def test_what_operators_changed_stays() -> None:
    Organisation.objects.create(name="a")
    made = enrol(token(organisation="a", tags=["x"])).json()
    client = Client.objects.get(pk=made["id"])
    client.organisation, client.name = None, "renamed"
    client.save()
    client.tags.clear()

    enrol(token(organisation="a", tags=["x"]))

    client.refresh_from_db()
    assert (client.organisation, client.name, client.tags.count()) == (None, "renamed", 0)


@pytest.mark.parametrize(
    "odd",
    [{"organisation": "nobody"}, {"organisation": 1}, {"organisation": "a\x00"}, {"tags": "mri"}, {"tags": [1]},
     {"tags": ["a\x00"]}, {"tags": ["x" * 65]}, {"tags": [f"t{n}" for n in range(65)]}, {"sub": ""},
     {"sub": "a\x00b"}, {"sub": "x" * 256}, {"sub": 7}, {"sub": ["a"]}, {"sub": "\ud800"}],
    ids=lambda odd: json.dumps(odd)[:40],
)  # fmt: skip
def test_odd_claims_enrol_nobody(odd: dict[str, Any]) -> None:
    header = {"alg": "EdDSA", "kid": "EdDSA"}

    answer = enrol(by_hand(header, claims(**odd), KEYS["EdDSA"].sign))

    assert answer.status_code in (400, 403), answer.content
    assert Client.objects.count() == 0


def test_a_revoked_subject_stays_out() -> None:
    made = enrol(token()).json()
    revoke_client(Client.objects.get(pk=made["id"]))

    answer = enrol(token())

    assert (answer.status_code, answer.json()["code"]) == (403, "invalid_enrolment_jwt")


def test_a_known_client_needs_a_token_for_another_model_too() -> None:
    _, credential = create_client()
    known = {"CLIENT-UUID": str(credential)}

    assert enrol(None, **known).status_code == 403
    assert enrol(token(), **known).json()["uuid"] == str(credential)


NOW = int(time.time())
TIMES: dict[str, tuple[dict[str, Any], bool]] = {
    "long over": ({"iat": NOW - 7200, "exp": NOW - 3600}, False),
    "just over": ({"iat": NOW - 600, "exp": NOW - 30}, True),
    "over for two minutes": ({"iat": NOW - 600, "exp": NOW - 120}, False),
    "valid tomorrow": ({"nbf": NOW + 86_400, "exp": NOW + 90_000}, False),
    "valid in a moment": ({"nbf": NOW + 30}, True),
    "made tomorrow": ({"iat": NOW + 86_400, "exp": NOW + 90_000}, False),
    "almost a day old": ({"iat": NOW - 86_000, "exp": NOW + 10**8}, True),
    "two days old and good for years": ({"iat": NOW - 172_800, "exp": NOW + 10**8}, False),
    "no end": ({"exp": None}, False),
    "no beginning": ({"iat": None}, False),
    "words": ({"exp": "tomorrow"}, False),
    "beyond time": ({"exp": 1e400}, False),
    "a list": ({"exp": [NOW + 60]}, False),
}


@pytest.mark.parametrize("when", TIMES)
def test_times_hold_with_a_minute_of_leeway(when: str) -> None:
    said_at_import, is_good = TIMES[when]
    since = int(time.time()) - NOW
    changes = {
        name: moment + since if isinstance(moment, int) else moment for name, moment in said_at_import.items()
    }
    said = by_hand({"alg": "EdDSA", "kid": "EdDSA"}, claims(**changes), KEYS["EdDSA"].sign)

    assert enrol(said).status_code == (200 if is_good else 403)


@pytest.mark.parametrize(
    "changes",
    [{"iss": "https://evil.example"}, {"iss": None}, {"iss": [ISSUER]}, {"iss": ISSUER[:-1]}, {"aud": "other"},
     {"aud": None}, {"aud": ["other"]}, {"aud": []}, {"sub": None}],
)  # fmt: skip
def test_tokens_for_others_are_refused(changes: dict[str, Any]) -> None:
    said = by_hand({"alg": "EdDSA", "kid": "EdDSA"}, claims(**changes), KEYS["EdDSA"].sign)

    assert enrol(said).status_code == 403


def test_an_audience_among_others_is_ours() -> None:
    assert enrol(token(aud=["other", AUDIENCE])).status_code == 200


def pem_of(algorithm: str) -> bytes:
    return bytes(
        KEYS[algorithm]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def hmac_by(secret: bytes) -> Any:
    return lambda said: hmac.new(secret, said, hashlib.sha256).digest()


FORGED: dict[str, Any] = {
    "alg none": lambda: by_hand({"alg": "none", "kid": "RS256"}, claims()),
    "alg None": lambda: by_hand({"alg": "None"}, claims()),
    "no alg": lambda: by_hand({"kid": "RS256"}, claims()),
    "alg null": lambda: by_hand({"alg": None}, claims()),
    "alg list": lambda: by_hand({"alg": ["RS256"]}, claims()),
    "kid number": lambda: by_hand({"alg": "RS256", "kid": 1}, claims()),
    "kid list": lambda: by_hand({"alg": "RS256", "kid": []}, claims()),
    "the public key as a secret": lambda: by_hand({"alg": "HS256", "kid": "RS256"}, claims(), hmac_by(pem_of("RS256"))),
    "the public point as a secret": lambda: by_hand(
        {"alg": "HS256", "kid": "EdDSA"}, claims(),
        hmac_by(KEYS["EdDSA"].public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)),
    ),
    "a secret for no key": lambda: by_hand({"alg": "HS256", "kid": "RS256"}, claims(), hmac_by(b"")),
    "the key of another algorithm": lambda: by_hand({"alg": "RS256", "kid": "ES256"}, claims(), hmac_by(b"")),
    "an empty signature": lambda: by_hand({"alg": "RS256", "kid": "RS256"}, claims()),
    "a zero signature": lambda: by_hand({"alg": "ES256", "kid": "ES256"}, claims(), lambda _: bytes(64)),
    "zeros for Ed25519": lambda: by_hand({"alg": "EdDSA", "kid": "EdDSA"}, claims(), lambda _: bytes(64)),
    "another key of the same id": lambda: token(key=rsa.generate_private_key(65537, 2048)),
    "a key in its own header": lambda: token(
        key=(own := rsa.generate_private_key(65537, 2048)), headers={"jwk": public("RS256", own)}
    ),
    "a key elsewhere": lambda: token(
        key=rsa.generate_private_key(65537, 2048), headers={"jku": "https://evil.example/keys", "kid": "evil"}
    ),
    "PS256": lambda: jwt.encode(claims(), KEYS["RS256"], "PS256", headers={"kid": "RS256"}),
    "RS512": lambda: jwt.encode(claims(), KEYS["RS256"], "RS512", headers={"kid": "RS256"}),
    "an unknown critical header": lambda: token("EdDSA", headers={"crit": ["x-policy"], "x-policy": 1}),
    "no token": lambda: "x",
    "two parts": lambda: "a.b",
    "long": lambda: token(note="x" * 10_000),
    "deep": lambda: "W1tb" * 1000 + ".e30.AA",
}  # fmt: skip


@pytest.mark.parametrize("forged", FORGED)
def test_no_forged_token_enrols(forged: str) -> None:
    answer = enrol(FORGED[forged]())

    assert (answer.status_code, answer.json()["code"]) == (403, "invalid_enrolment_jwt"), answer.content
    assert Client.objects.count() == 0


def test_no_token_and_other_credentials_enrol_nobody() -> None:
    for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Token {token()}"}):
        assert enrol(None, **headers).json()["code"] == "invalid_enrolment_jwt"


@given(data=st.data())
@hypothesis_settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_token_is_refused_and_breaks_nothing(data: st.DataObject) -> None:
    said = GOOD[data.draw(st.sampled_from(sorted(GOOD)))]
    place = data.draw(st.integers(0, len(said) - 1))
    inserted = data.draw(st.text(st.characters(codec="utf-8"), max_size=5))
    changed = said[:place] + inserted + said[place + data.draw(st.integers(0, 5)) :]
    with suppress(InvalidEnrolmentJwt):  # the last character of base64 has bits that mean nothing
        assert verified(changed).subject == "scanner-1"


GOOD = {algorithm: token(algorithm, exp=NOW + 86_400) for algorithm in KEYS}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    header=st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "x5c"]), JSON, max_size=4),
    payload=st.dictionaries(st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "organisation", "tags"]), JSON),
    document=st.dictionaries(st.sampled_from(["kty", "crv", "alg", "use", "kid", "n", "e", "x", "y", "k"]), JSON),
)  # fmt: skip
@pytest.mark.untraced
@hypothesis_settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_odd_tokens_and_keys_break_nothing(
    header: dict[str, Any], payload: dict[str, Any], document: dict[str, Any]
) -> None:
    signed = by_hand({"alg": "EdDSA", "kid": "EdDSA", **header}, {**claims(), **payload}, KEYS["EdDSA"].sign)
    for said in (signed, by_hand(header, payload)):
        with suppress(InvalidEnrolmentJwt):
            verified(said)
    good = public("EdDSA")
    assert jwks.parsed(json.dumps({"keys": [document, good]}).encode())[-1].id == "EdDSA"


def test_keys_that_must_not_sign_are_left_out() -> None:
    weak = rsa.generate_private_key(65537, 1024)
    private = {**public("EdDSA"), "kid": "private"} | {
        "d": base64.urlsafe_b64encode(KEYS["EdDSA"].private_bytes_raw()).decode().rstrip("=")
    }
    keys = [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "secret", "alg": "HS256"},
        public("RS256", weak, kid="weak"),
        public("RS256", kid="for encryption", use="enc"),
        public("RS256", kid="another algorithm", alg="RS512"),
        public("ES256", kid="broken", x="AA"),
        private,
    ]

    [left] = jwks.parsed(json.dumps({"keys": keys}).encode())

    assert left.id == "private"
    assert isinstance(left.key, ed25519.Ed25519PublicKey)


def test_guesses_are_limited(settings: LazySettings) -> None:
    settings.FMA_LOGIN_RATE = (3, 60)
    model = make_model()

    codes = [enrol(FORGED["alg none"](), model).status_code for _ in range(5)]

    assert codes == [403, 403, 403, 429, 429]


def test_a_bearer_is_not_read_where_registration_is_open(settings: LazySettings) -> None:
    settings.FMA_REGISTRATION = "open"

    assert enrol("nonsense").status_code == 200


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("fma_django.clients.jwks.time.monotonic", made)
    return made


def test_a_new_key_is_read_at_most_once_a_minute(clock: Clock, provider: Path) -> None:
    new = rsa.generate_private_key(65537, 2048)
    said = token(key=new, headers={"kid": "new"})
    assert enrol(token()).status_code == 200
    provider.write_text(json.dumps({"keys": [public("RS256"), public("RS256", new, kid="new")]}))
    clock.now += 59
    assert enrol(said).status_code == 403
    clock.now += 2
    assert enrol(said).status_code == 200


def test_a_key_that_was_withdrawn_is_no_longer_trusted_after_an_hour(clock: Clock, provider: Path) -> None:
    assert enrol(token()).status_code == 200
    provider.write_text(json.dumps({"keys": [public("ES256")]}))
    clock.now += 3601
    assert enrol(token()).status_code == 403
    assert enrol(token("ES256")).status_code == 200


@pytest.mark.parametrize(
    "content",
    [
        *(
            "",
            "[]",
            "{}",
            '{"keys": 1}',
            '{"keys": []}',
            "\xff",
            '{"keys": [1, null, "x"]}',
            '{"keys": 1e999}',
        ),
        *("[" * 100_000, '{"a":' * 9000, '{"keys":' + "[" * 50_000 + "]" * 50_000 + "}"),
        '{"keys": [' + "1" * 5000 + "]}",
    ],
    ids=lambda content: content[:24],
)
def test_without_keys_nobody_enrols_and_the_server_says_so(provider: Path, content: str) -> None:
    provider.write_text(content, encoding="latin-1")

    answer = enrol(token())

    assert (answer.status_code, answer.json()["code"]) == (503, "keys_unavailable")
    assert "Retry-After" in answer.headers


def test_keys_come_from_a_url_in_few_requests(
    settings: LazySettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: Path
) -> None:
    authority = Authority(tmp_path / "authority", "our own")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    with HttpsServer(authority, {"/keys": Answer(provider.read_bytes())}) as server:
        settings.FMA_JWKS = f"{server.url}/keys"
        refused = enrol(token())
        jwks.of.cache_clear()
        settings.FMA_OUTGOING_NETWORKS = (ip_network("127.0.0.0/8"),)
        statuses = [enrol(token(algorithm)).status_code for algorithm in KEYS]
        statuses += [enrol(token(headers={"kid": f"unknown-{n}"})).status_code for n in range(5)]

    assert refused.status_code == 503  # this machine is no public address
    assert statuses == [200] * 3 + [403] * 5
    assert server.asked == ["/keys"]


def test_a_subject_stays_one_client_after_it_rotated_its_credential() -> None:
    device = APIClient(headers={"client-uuid": enrol(token()).json()["uuid"]})
    key = {"idempotency-key": "0123456789abcdef"}
    following = device.post("/api/v1/clients/me/credential/", headers=key).json()["uuid"]
    assert APIClient(headers={"client-uuid": following}).get("/api/v1/me/").status_code == 200

    again = enrol(token())

    assert (again.status_code, again.json()["code"]) == (403, "invalid_enrolment_jwt")
    assert "rotated" in again.json()["detail"]
    revoke_client(Client.objects.get())
    assert "revoked" in enrol(token()).json()["detail"]
    assert Client.objects.count() == 1


def test_a_subject_keeps_the_key_that_it_enrolled_with() -> None:
    key, other, model = Key(), Key(), make_model()

    def enrol_with(sent: Key) -> Any:
        headers = {"Authorization": f"Bearer {token('RS256')}", "Idempotency-Key": REGISTRATION_KEY}
        url = f"/api/v1/models/{model.pk}/register_client/"
        return APIClient().post(url, sent.at_registration(), format="json", headers=headers)

    assert enrol_with(key).json()["public_key"] == key.public.hex()
    assert enrol_with(key).status_code == 200
    refused = enrol_with(other)
    assert (refused.status_code, refused.json()["code"]) == (409, "client_has_key")
    assert Client.objects.get().public_key == key.public.hex()
