"""Users log in at an identity provider; whatever else comes back from there, or as if from there, lets nobody in."""

import hashlib
import hmac
import json
import re
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import jwt
import pytest
from allauth.mfa.totp.internal.auth import TOTP, format_hotp_value, hotp_value
from allauth.socialaccount.models import SocialAccount, SocialToken
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from django.contrib.auth.models import Group, User
from django.contrib.sessions.models import Session
from django.db import connection
from django.db.models import EmailField, Lookup
from django.test import Client as Browser
from django.test.utils import override_script_prefix, register_lookup
from jwt.algorithms import RSAAlgorithm
from pytest_django import Settings

from fma_api.cli.problem import Problem
from fma_api.cli.user import bind_account
from fma_api.oidc import discovery
from fma_django.accounts import second_factor
from fma_django.accounts.sign_on import bind
from fma_django.accounts.tokens import Limits, create_token, issue_token
from fma_django.admin.accounts import AccountForm
from fma_django.clients import jwks
from tests.records import PASSWORD, make_user, make_user_with
from tests.servers.certificates import Authority
from tests.servers.https import Answer, HttpsServer

pytestmark = pytest.mark.django_db

LOGIN, CALLBACK = "/admin/login/oidc/", "/admin/login/oidc/callback/"
CLIENT_ID, SECRET = "fma:admin", "a secret/with?odd&signs"
KEY, OTHER_KEY = (rsa.generate_private_key(65537, 2048) for _ in range(2))
DESCRIPTION = "/.well-known/openid-configuration"
ANSWERS = "/token"


@dataclass
class Provider:
    """A provider whose every word is said by the test."""

    server: HttpsServer
    claims: dict[str, Any] = field(default_factory=dict)
    userinfo: dict[str, Any] = field(default_factory=dict)

    @property
    def issuer(self) -> str:
        return self.server.url

    def describe(self, **changes: Any) -> None:
        """Publish the description and the keys; None takes a member out."""
        said = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}{ANSWERS}",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "jwks_uri": f"{self.issuer}/keys",
            "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
        }
        said = {name: value for name, value in {**said, **changes}.items() if value is not None}
        key = {**RSAAlgorithm.to_jwk(KEY.public_key(), as_dict=True), "kid": "k", "alg": "RS256"}
        self.server.answers = {
            DESCRIPTION: Answer(json.dumps(said).encode()),
            "/keys": Answer(json.dumps({"keys": [key]}).encode()),
        }
        discovery._of.clear()

    def token(self, nonce: str, /, *, key: Any = KEY, algorithm: str = "RS256", **changes: Any) -> str:
        now = int(time.time())
        good = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "sub": "s-1",
            "iat": now,
            "exp": now + 60,
            "nonce": nonce,
        }
        said = {
            name: value for name, value in {**good, **self.claims, **changes}.items() if value is not None
        }
        return jwt.encode(said, key, algorithm, headers={"kid": "k"})

    def answer(self, id_token: str, **changes: Any) -> None:
        said = {"access_token": "opaque", "token_type": "Bearer", "id_token": id_token, **changes}
        self.server.answers[ANSWERS] = Answer(json.dumps(said).encode())
        userinfo = {"sub": "s-1", **self.userinfo}
        self.server.answers["/userinfo"] = Answer(json.dumps(userinfo).encode())

    def log_in(
        self, browser: Browser | None = None, following: str = "", **changes: Any
    ) -> tuple[Browser, Any]:
        """A whole login, with changes to the ID token."""
        browser = browser or Browser()
        said = began(browser, following)
        self.answer(self.token(said["nonce"], **changes))
        return browser, came_back(browser, said["state"])


def began(browser: Browser, following: str = "") -> dict[str, str]:
    """The parameters with which the browser is sent to the provider."""
    answer = browser.get(LOGIN, {"next": following} if following else {})
    assert answer.status_code == 302, answer.content
    query = parse_qs(urlsplit(answer.headers["Location"]).query, strict_parsing=True)
    assert all(len(values) == 1 for values in query.values())
    return {name: values[0] for name, values in query.items()}


def came_back(browser: Browser, state: str, **said: str) -> Any:
    return browser.get(CALLBACK, {"code": "c-1", "state": state, **said})


def is_in(browser: Browser) -> bool:
    return "_auth_user_id" in browser.session


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpsServer]:
    authority = Authority(tmp_path_factory.mktemp("oidc") / "authority", "our own")
    with pytest.MonkeyPatch.context() as patch, HttpsServer(authority, {}) as started:
        patch.setenv("SSL_CERT_FILE", str(authority.certificate))
        yield started


@pytest.fixture(autouse=True)
def provider(server: HttpsServer, settings: Settings) -> Provider:
    settings.FMA_OIDC_ISSUER, settings.FMA_OIDC_NAME = server.url, "the hospital"
    settings.FMA_OIDC_CLIENT_ID, settings.FMA_OIDC_CLIENT_SECRET = CLIENT_ID, SECRET
    settings.FMA_OUTGOING_NETWORKS = (ip_network("127.0.0.0/8"),)
    settings.FMA_LOGIN_RATE = (1000, 60)
    jwks.of.cache_clear()
    server.asked.clear()
    server.posted.clear()
    made = Provider(server)
    made.describe()
    return made


@pytest.fixture
def user(provider: Provider) -> User:
    made = make_user("anna", staff=True)
    bind(made, provider.issuer, "s-1")
    return made


def test_a_user_logs_in_at_the_provider(provider: Provider, user: User, server: HttpsServer) -> None:
    page = Browser().get("/admin/login/?next=/admin/auth/user/").content.decode()
    assert "Log in with the hospital" in page
    assert f'href="{LOGIN}?next=/admin/auth/user/"' in page

    browser, answer = provider.log_in(following="/admin/auth/user/")

    assert (answer.status_code, answer.headers["Location"]) == (302, "/admin/auth/user/")
    assert browser.get("/admin/").wsgi_request.user == user
    sent = parse_qs(server.posted[0])
    assert sent["client_secret"] == [SECRET]
    assert sent["redirect_uri"] == [f"http://testserver{CALLBACK}"]
    assert server.headers["/userinfo"]["Authorization"] == "Bearer opaque"


def test_the_request_has_state_nonce_and_a_challenge_that_the_verifier_meets(
    provider: Provider, user: User, server: HttpsServer
) -> None:
    browser = Browser()
    said = began(browser)
    provider.answer(provider.token(said["nonce"]))
    came_back(browser, said["state"])

    verifier = parse_qs(server.posted[0])["code_verifier"][0]
    digest = urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    assert (said["code_challenge_method"], said["code_challenge"]) == ("S256", digest)
    assert (said["response_type"], said["client_id"]) == ("code", CLIENT_ID)
    assert {*said["scope"].split()} == {"openid", "profile", "email"}
    other = began(Browser())
    assert not {other["state"], other["nonce"]} & {said["state"], said["nonce"]}


def test_nothing_that_an_address_says_changes_the_request() -> None:
    query = "?auth_params=redirect_uri%3Dhttps://evil.example%26nonce%3Dx&scope=admin&process=connect&action=reauthenticate"
    said = parse_qs(urlsplit(Browser().get(f"{LOGIN}{query}").headers["Location"]).query)

    assert said["redirect_uri"] == [f"http://testserver{CALLBACK}"]
    assert {*said["scope"][0].split()} == {"openid", "profile", "email"}
    assert "prompt" not in said


def test_a_provider_that_wants_basic_authentication_gets_it(
    provider: Provider, user: User, server: HttpsServer
) -> None:
    provider.describe(token_endpoint_auth_methods_supported=["client_secret_basic"], userinfo_endpoint=None)

    browser, _ = provider.log_in()

    assert is_in(browser)
    assert (
        server.headers[ANSWERS]["Authorization"]
        == "Basic Zm1hJTNBYWRtaW46YSUyMHNlY3JldCUyRndpdGglM0ZvZGQlMjZzaWducw=="
    )
    assert "client_secret" not in parse_qs(server.posted[0])


def hmac_of_public_key(provider: Provider, nonce: str) -> str:
    """A token whose HMAC has the public key for a secret; PyJWT would not make it."""
    public = KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    parts = provider.token(nonce).split(".")
    header = urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": "k"}).encode()).rstrip(b"=").decode()
    said = f"{header}.{parts[1]}"
    signature = urlsafe_b64encode(hmac.digest(public, said.encode(), "sha256")).rstrip(b"=").decode()
    return f"{said}.{signature}"


FORGED: dict[str, dict[str, Any]] = {
    "another login's nonce": {"nonce": "0" * 64},
    "no nonce": {"nonce": None},
    "a nonce that is no text": {"nonce": ["x"]},
    "another audience": {"aud": "another-client"},
    "no audience": {"aud": None},
    "many audiences, made for another": {"aud": [CLIENT_ID, "another"], "azp": "another"},
    "another issuer": {"iss": "https://evil.example"},
    "no issuer": {"iss": None},
    "expired": {"exp": 1_700_000_000},
    "no expiry": {"exp": None},
    "of the future": {"iat": 4_000_000_000},
    "another's key": {"key": OTHER_KEY},
    "another person than userinfo": {"sub": "s-2"},
    "no subject": {"sub": None},
    "a subject that is no text": {"sub": 1},
    "a long subject": {"sub": "s" * 192},
}


@pytest.mark.parametrize("changes", FORGED.values(), ids=FORGED)
def test_a_forged_id_token_lets_nobody_in(provider: Provider, user: User, changes: dict[str, Any]) -> None:
    bind(make_user("other", staff=True), provider.issuer, "s-2")

    browser, answer = provider.log_in(**changes)

    assert answer.status_code == 403
    assert not is_in(browser)


def test_tokens_without_a_signature_or_with_a_public_one_let_nobody_in(
    provider: Provider, user: User
) -> None:
    for forge in ("none", "hmac", "cut", "garbage", "missing"):
        browser = Browser()
        said = began(browser)
        good = provider.token(said["nonce"])
        none = provider.token(said["nonce"], key=None, algorithm="none")
        forged = {"none": none, "hmac": hmac_of_public_key(provider, said["nonce"]), "cut": good[:-9],
                  "garbage": "x.y.z", "missing": ""}[forge]  # fmt: skip
        provider.answer(forged)
        assert came_back(browser, said["state"]).status_code == 403, forge
        assert not is_in(browser)


def test_a_state_belongs_to_one_session_and_one_login(provider: Provider, user: User) -> None:
    victim, attacker = Browser(), Browser()
    said = began(attacker)
    provider.answer(provider.token(said["nonce"]))
    began(victim)

    assert (
        came_back(victim, said["state"]).status_code == 403
    )  # the attacker's account in the victim's browser
    assert came_back(victim, "guessed").status_code == 403
    assert came_back(Browser(), "").status_code == 403
    assert not is_in(victim)
    assert came_back(attacker, said["state"]).status_code == 302
    again = Browser()
    again.cookies = attacker.cookies
    assert came_back(again, said["state"]).status_code == 403  # replayed


def test_a_code_that_the_provider_refuses_lets_nobody_in(
    provider: Provider, user: User, server: HttpsServer
) -> None:
    browser = Browser()
    said = began(browser)
    server.answers[ANSWERS] = Answer(b'{"error": "invalid_grant"}', status=400)

    answer = came_back(browser, said["state"])

    assert answer.status_code == 403
    assert b"The login was not completed" in answer.content
    assert not is_in(browser)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'"x"', b'{"access_token": 1}', b'{"access_token": "a"}', b"[" * 99999]
)
def test_odd_answers_let_nobody_in(provider: Provider, user: User, server: HttpsServer, body: bytes) -> None:
    for path in (ANSWERS, "/userinfo"):
        browser = Browser()
        said = began(browser)
        provider.answer(provider.token(said["nonce"]))
        server.answers[path] = Answer(body)
        assert came_back(browser, said["state"]).status_code == 403
        assert not is_in(browser)


def test_an_error_of_the_provider_is_a_page_without_its_words(provider: Provider) -> None:
    for error in ("access_denied", "server_error", "<script>alert(1)</script>"):
        browser = Browser()
        said = began(browser)
        answer = browser.get(CALLBACK, {"error": error, "error_description": "<b>x", "state": said["state"]})
        assert answer.status_code == 403
        assert error.encode() not in answer.content


@pytest.mark.parametrize(
    "changes",
    [{"issuer": "https://evil.example"}, {"issuer": None}, {"token_endpoint": "http://localhost/"}, {"jwks_uri": None},
     {"authorization_endpoint": "javascript:alert(1)"}, {"authorization_endpoint": 1}],
)  # fmt: skip
def test_a_description_of_another_provider_is_refused(provider: Provider, changes: dict[str, Any]) -> None:
    provider.describe(**changes)

    answer = Browser().get(LOGIN)

    assert answer.status_code == 403
    assert b"cannot be reached" in answer.content


@pytest.mark.parametrize(
    "changes",
    [{"userinfo_endpoint": 1}, {"userinfo_endpoint": ["x"]}, {"userinfo_endpoint": "http://localhost/"},
     {"token_endpoint_auth_methods_supported": 1}, {"token_endpoint_auth_methods_supported": "client_secret_post"},
     {"authorization_endpoint": "https://x/\ud800"}, {"jwks_uri": "https://x/\u00fc"}],
)  # fmt: skip
def test_an_odd_description_is_refused(provider: Provider, changes: dict[str, Any]) -> None:
    provider.describe(**changes)

    assert Browser().get(LOGIN).status_code == 403


@pytest.mark.parametrize("body", [b"[" * 99999, b"1", b"null", b'"x"', b""])
def test_a_description_that_is_no_object_is_refused(
    provider: Provider, server: HttpsServer, body: bytes
) -> None:
    server.answers[DESCRIPTION] = Answer(body)

    assert Browser().get(LOGIN).status_code == 403


def test_an_endpoint_keeps_its_own_parameters(provider: Provider) -> None:
    provider.describe(authorization_endpoint=f"{provider.issuer}/authorize?policy=sign-in")

    said = began(Browser())

    assert (said["policy"], said["client_id"]) == ("sign-in", CLIENT_ID)


@pytest.mark.parametrize(
    "claims",
    [{"nonce": "\ud800"}, {"nonce": 5}, {"nonce": None}, {"sub": 5}, {"sub": "\x00"}, {"sub": "x" * 192},
     {"sub": "\ud800"}, {"azp": "\ud800"}, {"azp": []}, {"anything": ["\udfff"]}, {"exp": "x"}, {"iat": 2**70}],
)  # fmt: skip
def test_odd_claims_let_nobody_in(
    provider: Provider, user: User, settings: Settings, claims: dict[str, Any]
) -> None:
    settings.FMA_OIDC_NEW_USERS = True

    assert provider.log_in(**claims)[1].status_code == 403


@pytest.mark.parametrize("email", ["a\x00@example.org", "a@ex\ud800ample.org", 5, [], "a b@example.org", "x"])
def test_an_odd_address_is_none(provider: Provider, settings: Settings, email: Any) -> None:
    settings.FMA_OIDC_MATCH_EMAIL = True
    provider.userinfo = {"email": email, "email_verified": True}

    assert provider.log_in()[1].status_code == 403


@pytest.mark.parametrize("email", [5, "a b@example.org", "x" * 300 + "@example.org"])
def test_whoever_has_no_address_is_made_a_user_without_one(
    provider: Provider, settings: Settings, email: Any
) -> None:
    settings.FMA_OIDC_NEW_USERS = True

    assert provider.log_in(email=email, email_verified=True)[1].status_code == 302
    assert User.objects.get().email == ""


def test_the_beginning_of_an_address_is_another_address(provider: Provider, settings: Settings) -> None:
    settings.FMA_OIDC_MATCH_EMAIL = True
    settings.FMA_OIDC_EMAIL_DOMAINS = ("example.org",)
    email = "a" * 242 + "@example.org"
    assert len(email) == 254
    User.objects.filter(pk=make_user("anna").pk).update(email=email)

    assert provider.log_in(email=f"{email}.evil.example", email_verified=True)[1].status_code == 403
    assert provider.log_in(email=email, email_verified=True)[1].status_code == 302


class UnicodeIExact(Lookup):
    """As PostgreSQL compares with most of its locales, on SQLite."""

    lookup_name = "iexact"

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        (left, of_left), (right, of_right) = (
            self.process_lhs(compiler, connection),
            self.process_rhs(compiler, connection),
        )
        return f"unicode_upper({left}) = unicode_upper({right})", [*of_left, *of_right]


@pytest.mark.skipif(connection.vendor != "sqlite", reason="the function is one of SQLite")
@pytest.mark.parametrize(
    ("theirs", "of_user"),
    [("x@m\u0131ke.org", "x@mike.org"), ("x@mike.org", "x@m\u0131ke.org"), ("x@\u017fam.org", "x@sam.org")],
)
def test_letters_that_a_database_takes_for_one_are_two(
    provider: Provider, settings: Settings, theirs: str, of_user: str
) -> None:
    settings.FMA_OIDC_MATCH_EMAIL = True
    User.objects.filter(pk=make_user("mike").pk).update(email=of_user)
    connection.ensure_connection()
    connection.connection.create_function("unicode_upper", 1, str.upper)
    with register_lookup(EmailField, UnicodeIExact):
        assert provider.log_in(email=theirs, email_verified=True)[1].status_code == 403
    assert not SocialAccount.objects.exists()


def test_a_provider_that_is_away_is_asked_once_in_a_while(provider: Provider, server: HttpsServer) -> None:
    server.answers.clear()

    assert [Browser().get(LOGIN).status_code for _ in range(5)] == [403] * 5
    assert server.asked == [DESCRIPTION]


@pytest.mark.parametrize("name", ["token_endpoint", "userinfo_endpoint", "jwks_uri"])
def test_a_private_address_is_not_asked(
    provider: Provider, user: User, server: HttpsServer, settings: Settings, name: str
) -> None:
    """The description comes from where it may; what it names, and redirects, must be allowed as well."""
    provider.describe(**{name: f"https://127.0.0.2:{server.port}/inner"})
    settings.FMA_OUTGOING_NETWORKS = (ip_network("127.0.0.1/32"),)

    browser, answer = provider.log_in()

    assert answer.status_code == 403
    assert not is_in(browser)
    assert "/inner" not in server.asked


@pytest.mark.parametrize("path", [ANSWERS, "/userinfo"])
def test_credentials_follow_no_redirect(
    provider: Provider, user: User, server: HttpsServer, path: str
) -> None:
    browser = Browser()
    said = began(browser)
    provider.answer(provider.token(said["nonce"]))
    server.answers["/elsewhere"] = server.answers[path]
    server.answers[path] = Answer(status=307, headers={"Location": f"{server.url}/elsewhere"})

    assert came_back(browser, said["state"]).status_code == 403
    assert "/elsewhere" not in server.asked


def test_logins_that_are_not_completed_are_limited(
    provider: Provider, user: User, server: HttpsServer, settings: Settings
) -> None:
    settings.FMA_LOGIN_RATE = (3, 60)
    for _ in range(5):
        assert provider.log_in()[1].status_code == 302  # those that are completed cost nothing
    for _ in range(3):
        assert provider.log_in(key=OTHER_KEY)[1].status_code == 403
    server.asked.clear()

    refused = [Browser().get(LOGIN) for _ in range(2)]
    assert [answer.status_code for answer in refused] == [429, 429]
    assert "Too many logins that were not completed from this address" in refused[0].json()["detail"]
    assert [came_back(Browser(), "guessed").status_code for _ in range(5)] == [403] * 5
    assert server.asked == []


def test_a_stranger_is_no_user(provider: Provider, user: User) -> None:
    provider.claims = {"email": user.email, "email_verified": True, "preferred_username": user.username}
    browser, answer = provider.log_in(sub="s-9")
    provider.userinfo = {"sub": "s-9"}
    browser, answer = provider.log_in(sub="s-9")

    assert answer.status_code == 403
    assert b"ask an operator" in answer.content
    assert not is_in(browser)
    assert User.objects.count() == 1


def test_a_deactivated_user_gets_in_neither_way(provider: Provider, user: User) -> None:
    make_user("second", staff=True)
    user.is_active = False
    user.save()

    browser, answer = provider.log_in()

    assert answer.status_code == 403
    assert not is_in(browser)


@pytest.mark.parametrize(
    ("is_on", "email", "is_verified", "expected"),
    [
        (True, "Anna@Example.org", True, 302),
        (True, "anna@example.org", False, 403),
        (True, "anna@example.org", None, 403),
        (True, "bob@example.org", True, 403),
        (True, "twice@example.org", True, 403),
        (False, "anna@example.org", True, 403),
    ],
)
def test_a_verified_address_finds_its_only_user_when_that_is_wanted(
    provider: Provider, settings: Settings, is_on: bool, email: str, is_verified: bool | None, expected: int
) -> None:
    settings.FMA_OIDC_MATCH_EMAIL = is_on
    for name, address in (
        ("anna", "anna@example.org"),
        ("x", "twice@example.org"),
        ("y", "TWICE@example.org"),
    ):
        User.objects.filter(pk=make_user(name).pk).update(email=address)

    _, answer = provider.log_in(email=email, email_verified=is_verified)

    assert answer.status_code == expected
    assert SocialAccount.objects.filter(user__username="anna").exists() == (expected == 302)


def test_an_address_of_userinfo_is_verified_only_by_userinfo(provider: Provider, settings: Settings) -> None:
    settings.FMA_OIDC_MATCH_EMAIL = True
    User.objects.filter(pk=make_user("anna").pk).update(email="anna@example.org")
    provider.userinfo = {"email": "anna@example.org"}

    assert provider.log_in(email_verified=True)[1].status_code == 403
    provider.userinfo = {"email": "anna@example.org", "email_verified": True}
    assert provider.log_in()[1].status_code == 302


def test_a_second_account_with_the_address_is_another_person(provider: Provider, settings: Settings) -> None:
    settings.FMA_OIDC_MATCH_EMAIL = True
    anna = make_user("anna")
    User.objects.filter(pk=anna.pk).update(email="anna@example.org")
    bind(anna, provider.issuer, "s-0")

    assert provider.log_in(email="anna@example.org", email_verified=True)[1].status_code == 403


def test_whoever_made_a_user_with_the_address_of_another_person_gets_none_of_their_roles(
    provider: Provider, settings: Settings
) -> None:
    settings.FMA_OIDC_MATCH_EMAIL = True
    settings.FMA_OIDC_ROLES = (("ops", "operator"),)
    made = make_user_with(username="of-a-stranger")
    User.objects.filter(pk=made.pk).update(email="anna@example.org")
    of_login, (_, of_script) = issue_token(made), create_token(made, "script", Limits())

    browser, answer = provider.log_in(email="anna@example.org", email_verified=True, groups=["ops"])

    assert answer.status_code == 302
    assert browser.get("/api/v1/me/").json()["roles"] == ["operator"]
    said = {"username": made.username, "password": PASSWORD}
    assert Browser().post("/api-token-auth/", said, content_type="application/json").status_code == 400
    for token in (of_login, of_script):
        assert Browser().get("/api/v1/me/", headers={"authorization": f"Token {token}"}).status_code == 401
    made.refresh_from_db()
    made.set_password(PASSWORD)  # a later one is the person's own
    made.save()
    provider.log_in()
    made.refresh_from_db()
    assert made.check_password(PASSWORD)


def test_the_password_of_a_matched_owner_stays(provider: Provider, settings: Settings) -> None:
    settings.FMA_OIDC_MATCH_EMAIL = True
    anna = make_user("anna", staff=True)
    User.objects.filter(pk=anna.pk).update(email="anna@example.org")

    provider.log_in(email="anna@example.org", email_verified=True)

    anna.refresh_from_db()
    assert anna.check_password(PASSWORD)


def test_new_people_are_made_users_when_that_is_wanted(provider: Provider, settings: Settings) -> None:
    settings.FMA_OIDC_NEW_USERS = True
    make_user("anna")

    browser, answer = provider.log_in(preferred_username="an na", email="a@example.org", email_verified=True)

    made = User.objects.get(email="a@example.org")
    assert (made.username, made.is_superuser, made.is_active, made.has_usable_password()) == (
        "anna-2",
        False,
        True,
        False,
    )
    assert answer.headers["Location"] == "/api/docs/"  # the admin is not for them
    assert browser.get("/api/v1/me/").json()["username"] == "anna-2"
    assert provider.log_in()[1].status_code == 302
    assert User.objects.count() == 2


def test_only_verified_addresses_of_the_domains_log_in(
    provider: Provider, user: User, settings: Settings
) -> None:
    settings.FMA_OIDC_EMAIL_DOMAINS = ("example.org",)
    statuses = [
        provider.log_in(email=email, email_verified=is_verified)[1].status_code
        for email, is_verified in (
            ("a@example.org", True),
            ("a@EXAMPLE.org", True),
            ("a@example.org", False),
            ("a@evil.example.org", True),
            ("a@example.org@evil.example", True),
            ("", True),
        )
    ]

    assert statuses == [302, 302, 403, 403, 403, 403]


def test_roles_follow_the_claim_at_each_login_and_others_stay(provider: Provider, settings: Settings) -> None:
    settings.FMA_OIDC_ROLES_CLAIM = "realm_access.roles"
    settings.FMA_OIDC_ROLES = (("ops", "operator"), ("audit", "auditor"), ("x", "no such role"))
    anna = make_user_with(username="anna")
    anna.groups.set(Group.objects.filter(name__in=["data scientist", "auditor"]))
    bind(anna, provider.issuer, "s-1")

    def roles_with(*groups: Any) -> set[str]:
        provider.log_in(realm_access={"roles": [*groups]})
        return {*anna.groups.values_list("name", flat=True)}

    assert roles_with("ops", "x", "owner", 1) == {"data scientist", "operator"}
    assert roles_with("ops", "audit") == {"data scientist", "operator", "auditor"}
    provider.log_in()
    assert {*anna.groups.values_list("name", flat=True)} == {"data scientist"}


def test_no_claim_makes_an_owner(provider: Provider, settings: Settings) -> None:
    settings.FMA_OIDC_NEW_USERS = True
    settings.FMA_OIDC_ROLES = (("ops", "operator"),)
    provider.log_in(groups=["ops"], is_superuser=True, is_staff=True)

    assert not User.objects.get().is_superuser


def test_a_second_factor_is_asked_for_here_too(provider: Provider, user: User) -> None:
    TOTP.activate(user, "A" * 32)

    browser, answer = provider.log_in(following="/admin/auth/user/")

    assert answer.headers["Location"] == "/admin/login/code/"
    assert not is_in(browser)
    assert browser.post("/admin/login/code/", {"code": "000000"}).status_code == 403
    code = format_hotp_value(hotp_value("A" * 32, int(time.time()) // 30))
    answer = browser.post("/admin/login/code/", {"code": code})
    assert (answer.status_code, answer.headers["Location"]) == (302, "/admin/auth/user/")
    assert is_in(browser)


def test_a_required_second_factor_is_the_provider_s(
    provider: Provider, user: User, settings: Settings
) -> None:
    settings.FMA_SECOND_FACTOR = "required"

    browser, _ = provider.log_in()

    assert browser.get("/admin/").status_code == 200


@pytest.mark.parametrize(
    "following", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"]
)
def test_no_login_leads_to_another_host(
    provider: Provider, user: User, settings: Settings, following: str
) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    page = Browser().get("/admin/login/", {"next": following}).content.decode()

    _, answer = provider.log_in(following=following)

    assert answer.headers["Location"] == "/"
    assert f'href="{LOGIN}"' in page


def test_nothing_of_the_provider_s_words_is_kept(provider: Provider, user: User) -> None:
    provider.log_in(email="a@example.org", secret_of_the_person="x")

    assert SocialAccount.objects.get().extra_data == {}
    assert not SocialToken.objects.exists()


def test_passwords_can_be_turned_off(provider: Provider, user: User, settings: Settings) -> None:
    settings.FMA_PASSWORD_LOGIN = False
    said = {"username": "anna", "password": PASSWORD}
    page = Browser().get("/admin/login/").content.decode()

    assert 'name="password"' not in page
    assert "Log in with the hospital" in page
    assert Browser().post("/admin/login/", said).status_code == 403
    answer = Browser().post("/api-token-auth/", said, content_type="application/json")
    assert (answer.status_code, answer.json()["code"]) == (403, "password_login_off")
    answer = Browser().get("/api/v1/me/", headers={"authorization": "Basic YW5uYTp4"})
    assert (answer.status_code, answer.json()["code"]) == (401, "password_login_off")
    browser, _ = provider.log_in()
    assert browser.get("/admin/").status_code == 200
    assert browser.post("/admin/logout/").status_code == 200
    assert not is_in(browser)


def test_no_log_has_the_code_of_a_login(
    provider: Provider, user: User, capsys: pytest.CaptureFixture[str]
) -> None:
    for changes in ({}, {"key": OTHER_KEY}):
        provider.log_in(**changes)

    written = capsys.readouterr().err
    assert f"{CALLBACK}?code=…&state=" in written
    assert "c-1" not in written
    assert "opaque" not in written


def test_without_a_provider_there_is_no_such_login(settings: Settings) -> None:
    settings.FMA_OIDC_ISSUER = ""

    assert [Browser().get(path).status_code for path in (LOGIN, CALLBACK)] == [404, 404]
    assert "Log in with" not in Browser().get("/admin/login/").content.decode()


def test_below_a_prefix_the_provider_is_told_of_it(provider: Provider, user: User) -> None:
    browser = Browser(SCRIPT_NAME="/fl")
    with override_script_prefix("/fl/"):
        page = browser.get("/admin/login/").content.decode()
        said = began(browser)

    assert f'href="/fl{LOGIN}"' in page
    assert said["redirect_uri"] == f"http://testserver/fl{CALLBACK}"


def test_both_routes_only_read() -> None:
    assert [Browser().post(path).status_code for path in (LOGIN, CALLBACK)] == [405, 405]


def test_the_operator_of_the_machine_binds_an_account(provider: Provider, settings: Settings) -> None:
    make_user("anna"), make_user("ben")

    bind_account("anna", "s-1")
    bind_account("anna", "s-1")

    with pytest.raises(Problem, match="belongs to another user"):
        bind_account("ben", "s-1")
    assert provider.log_in()[0].get("/api/v1/me/").json()["username"] == "anna"
    settings.FMA_OIDC_ISSUER = ""
    with pytest.raises(Problem, match="FMA_OIDC_ISSUER is not set"):
        bind_account("ben", "s-2")


def inline(**said: str) -> dict[str, str]:
    """A form of the user's page with one new account."""
    forms = {
        f"{prefix}-{name}": "0"
        for prefix in ("api_tokens", "socialaccount_set")
        for name in ("INITIAL_FORMS",)
    }
    return {**forms, "api_tokens-TOTAL_FORMS": "0", "socialaccount_set-TOTAL_FORMS": "1", **said}


def test_an_operator_binds_an_account_but_not_for_whoever_holds_more(provider: Provider) -> None:
    owner, nobody = make_user("owner", staff=True), make_user_with(username="nobody")
    operator = make_user_with("fma_django.use_admin_site", "auth.view_user", "auth.change_user")
    bind(make_user("taken"), provider.issuer, "s-2")
    browser = Browser()
    browser.force_login(operator)

    def add(user: User, subject: str) -> int:
        said = inline(username=user.username, is_active="on", **{"socialaccount_set-0-uid": subject})
        return browser.post(f"/admin/auth/user/{user.pk}/change/", said).status_code

    assert browser.get(f"/admin/auth/user/{nobody.pk}/change/").status_code == 200
    assert [add(owner, "s-1"), add(nobody, "s-2"), add(nobody, "s-1")] == [403, 200, 302]
    bound = SocialAccount.objects.get(uid="s-1")
    assert (bound.user, bound.provider) == (nobody, provider.issuer)
    assert provider.log_in()[1].status_code == 302


@pytest.mark.parametrize(
    "subjects", [("s-1", "s-1"), ("\u202es-1", "s-2"), ("s\n1", "s-2"), ("s\x001", "s-2")]
)
def test_odd_accounts_are_not_bound(provider: Provider, subjects: tuple[str, str]) -> None:
    nobody = make_user_with(username="nobody")
    browser = Browser()
    browser.force_login(make_user("owner", staff=True))
    said = {f"socialaccount_set-{number}-uid": subject for number, subject in enumerate(subjects)}
    form = inline(username="nobody", is_active="on", **said) | {"socialaccount_set-TOTAL_FORMS": "2"}

    assert browser.post(f"/admin/auth/user/{nobody.pk}/change/", form).status_code == 200
    assert not SocialAccount.objects.exists()


def test_two_operators_who_bind_one_account_at_once_are_told(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one comes in after the form has looked."""
    anna, ben = make_user("anna"), make_user("ben")
    browser = Browser()
    browser.force_login(make_user("owner", staff=True))
    looked = AccountForm.clean_uid

    def looks_first(form: AccountForm) -> str:
        subject = looked(form)
        bind(ben, provider.issuer, subject)
        return subject

    monkeypatch.setattr(AccountForm, "clean_uid", looks_first)
    said = inline(username="anna", is_active="on", **{"socialaccount_set-0-uid": "s-1"})
    answer = browser.post(f"/admin/auth/user/{anna.pk}/change/", said)

    assert answer.status_code == 200
    assert "belongs to a" in answer.content.decode()
    assert SocialAccount.objects.get().user == ben


def test_an_account_that_is_unbound_ends_its_sessions(provider: Provider, user: User) -> None:
    browser, _ = provider.log_in()
    bind(other := make_user("other", staff=True), provider.issuer, "s-2")
    provider.userinfo = {"sub": "s-2"}
    of_other, _ = provider.log_in(sub="s-2")
    by_password, owner = Browser(), Browser()
    by_password.force_login(user)
    owner.force_login(make_user("owner", staff=True))
    account = SocialAccount.objects.get(uid="s-1")
    form = inline(username="anna", is_active="on", is_superuser="on") | {
        "socialaccount_set-INITIAL_FORMS": "1",
        "socialaccount_set-0-id": str(account.pk),
        "socialaccount_set-0-user": str(user.pk),
        "socialaccount_set-0-DELETE": "on",
    }

    answer = owner.post(f"/admin/auth/user/{user.pk}/change/", form)

    assert answer.status_code == 302, answer.content
    assert not SocialAccount.objects.filter(user=user).exists()
    assert browser.get("/admin/").status_code == 302
    assert browser.get("/api/v1/me/").status_code == 401
    assert [them.get("/admin/").status_code for them in (of_other, by_password)] == [200, 200]
    # Also when it is bound again.
    bind(user, provider.issuer, "s-1")
    assert browser.get("/admin/").status_code == 302
    assert other.is_active


def test_a_login_that_waits_for_a_code_ends_when_its_account_is_unbound(
    provider: Provider, user: User
) -> None:
    TOTP.activate(user, "A" * 32)
    browser, _ = provider.log_in()

    SocialAccount.objects.get().delete()

    code = format_hotp_value(hotp_value("A" * 32, int(time.time()) // 30))
    browser.post("/admin/login/code/", {"code": code})
    assert not is_in(browser)


def test_logins_that_are_begun_make_no_sessions(provider: Provider, user: User) -> None:
    for _ in range(5):
        said = began(Browser())
    browser = Browser()
    tabs = [began(browser, following) for following in ("", "/admin/auth/user/", "/" + "a" * 5000)]
    cookie = browser.cookies["fma_session_login"]
    came_back(browser, "guessed")
    provider.answer(provider.token(said["nonce"], key=OTHER_KEY))
    came_back(browser, tabs[2]["state"])

    assert not Session.objects.exists()
    assert len(cookie.value) < 4000
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Lax", LOGIN)
    # Each tab goes on by itself, and once.
    provider.answer(provider.token(tabs[1]["nonce"]))
    assert came_back(browser, tabs[1]["state"]).headers["Location"] == "/admin/auth/user/"
    assert Session.objects.count() == 1
    assert came_back(browser, tabs[1]["state"]).status_code == 403
    assert came_back(browser, tabs[2]["state"]).status_code == 403


def test_a_begun_login_that_somebody_else_wrote_is_none(provider: Provider) -> None:
    browser = Browser()
    said = began(browser)
    value = browser.cookies["fma_session_login"].value
    provider.answer(provider.token(said["nonce"]))
    for forged in ("", "x", value[:-1] + ("A" if value[-1] != "A" else "B"), f"x{value}"):
        other = Browser()
        other.cookies["fma_session_login"] = forged

        assert came_back(other, said["state"]).status_code == 403


ON = "/admin/second-factor/on/"


def without_password(provider: Provider, user: User, **claims: Any) -> Browser:
    """The browser of a user without a password, who has just logged in at the provider."""
    user.set_unusable_password()
    user.save()
    return provider.log_in(**claims)[0]


def test_a_session_of_the_provider_adds_a_second_factor_after_a_fresh_login(
    provider: Provider, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = without_password(provider, user)
    assert browser.get(ON).status_code == 200
    later = time.time() + 301
    monkeypatch.setattr("fma_api.oidc.proof.time.time", lambda: later)

    for answer in (browser.get(ON), browser.post(ON, {"code": "000000"})):
        assert (answer.status_code, answer.headers["Location"]) == (
            302,
            f"{LOGIN}?next={quote(ON, '')}&fresh=1",
        )
    monkeypatch.undo()
    query = parse_qs(urlsplit(browser.get(answer.headers["Location"]).headers["Location"]).query)
    assert (query["prompt"], query["max_age"]) == (["login"], ["0"])
    provider.answer(provider.token(query["nonce"][0], auth_time=int(time.time())))
    assert came_back(browser, query["state"][0]).headers["Location"] == ON
    page = browser.get(ON).content.decode()
    seed = re.findall(r'id="key"[^>]*value="(\w+)"', page)[0]
    code = format_hotp_value(hotp_value(seed, int(time.time()) // 30))
    assert browser.post(ON, {"code": code}).status_code == 302
    assert second_factor.is_on(user)


@pytest.mark.parametrize(
    ("auth_time", "is_fresh"),
    [(None, True), (-10, True), (60, True), (-400, False), ("now", True), (True, True), (-1e12, False)],
)
def test_the_provider_says_how_long_ago_it_asked(
    provider: Provider, user: User, auth_time: Any, is_fresh: bool
) -> None:
    """It may have known the user by a session of its own."""
    is_number = isinstance(auth_time, int | float) and not isinstance(auth_time, bool)
    said = int(time.time() + auth_time) if is_number else auth_time

    browser = without_password(provider, user, auth_time=said)

    assert browser.get(ON).status_code == (200 if is_fresh else 302)


def test_the_proof_of_one_user_is_none_of_another(provider: Provider, user: User) -> None:
    browser = without_password(provider, user)
    other = make_user("other", staff=True)
    other.set_unusable_password()
    other.save()
    proved = browser.session["fma_proved_at_provider"]
    browser.force_login(other)
    renewed = browser.session
    renewed["fma_proved_at_provider"] = proved
    renewed.save()

    assert browser.get(ON).status_code == 302


def test_a_session_without_a_password_or_a_provider_adds_no_second_factor(
    provider: Provider, user: User, settings: Settings
) -> None:
    user.set_unusable_password()
    user.save()
    browser = Browser()
    browser.force_login(user)
    settings.FMA_OIDC_ISSUER = ""

    assert browser.get(ON).status_code == 403
