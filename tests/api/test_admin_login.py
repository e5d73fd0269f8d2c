"""A wrong password at the admin's login page is logged, is a failure, and counts against FMA_LOGIN_RATE."""

import re
from base64 import b64encode
from contextlib import ExitStack, nullcontext

import pytest
from django.test import Client as Browser
from pytest_django import Settings

from fma_api.v1.limits import AT_ONCE, Guesses, password_places
from fma_django.accounts.roles import USE_ADMIN_SITE
from tests.records import PASSWORD, make_user, make_user_with

pytestmark = [pytest.mark.django_db, pytest.mark.untraced]

URL = "/admin/login/"


@pytest.fixture(autouse=True)
def three_a_minute(settings: Settings) -> None:
    settings.FMA_LOGIN_RATE = (3, 60)


def test_a_failed_login_is_a_failure_in_the_log(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    make_user("root", staff=True)
    answer = Browser().post(URL, {"username": "root", "password": "guess-1"})

    assert answer.status_code == 403
    assert b"Please enter the correct" in answer.content
    assert "login_failed" in caplog.text
    assert "guess-1" not in caplog.text
    assert "status=403" in capsys.readouterr().err


def test_guesses_count_whatever_port_the_proxy_saw(settings: Settings) -> None:
    settings.FMA_TRUST_PROXY = True
    statuses = [
        Browser()
        .post(
            URL,
            {"username": f"user-{number}", "password": "guess"},
            headers={"X-Forwarded-For": f"[2001:db8::1]:{number}"},
        )
        .status_code
        for number in range(1, 5)
    ]
    assert statuses == [403, 403, 403, 429]


def test_guesses_are_limited_together_with_those_of_the_api() -> None:
    make_user("root", staff=True)
    browser = Browser()
    assert browser.get("/api/v1/me/", headers={"authorization": "Basic cm9vdDpndWVzcw=="}).status_code == 401
    for _ in range(2):
        assert browser.post(URL, {"username": "root", "password": "guess"}).status_code == 403

    refused = browser.post(URL, {"username": "root", "password": PASSWORD})

    assert refused.status_code == 429
    assert 0 < int(refused.headers["Retry-After"]) <= 61
    assert browser.get("/admin/").status_code == 302  # not logged in
    assert browser.get(URL).status_code == 200


@pytest.mark.parametrize("path", [URL, "/api/v1/me/"])
def test_guesses_that_come_together_are_limited_together(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """While one password is hashed, the next ones come."""
    statuses: list[int] = []

    def ask() -> None:
        headers = {} if path == URL else {"authorization": "Basic cm9vdDpndWVzcw=="}
        said = {"username": "root", "password": "guess"}
        browser = Browser(headers=headers)
        statuses.append((browser.post(path, said) if path == URL else browser.get(path)).status_code)

    def slow(**_: object) -> None:
        if len(asked) < 6:
            asked.append(1)
            ask()

    asked: list[int] = []
    make_user("root", staff=True)
    monkeypatch.setattr(Guesses, "checked", lambda _: nullcontext())
    monkeypatch.setattr("django.contrib.auth.forms.authenticate", lambda request, **_: slow())
    monkeypatch.setattr("rest_framework.authentication.authenticate", slow)
    ask()

    assert sorted(statuses) == [403 if path == URL else 401] * 3 + [429]


def test_right_passwords_cost_nothing() -> None:
    make_user("root", staff=True)
    for _ in range(5):
        browser = Browser()
        assert browser.post(URL, {"username": "root", "password": PASSWORD}).status_code == 302
        assert browser.get("/admin/").status_code == 200


def codes_in(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The codes of the requests that were refused, as the request log has them."""
    lines = [line for line in capsys.readouterr().err.splitlines() if "request_finished" in line]
    refused = [line for line in lines if re.search(r"status=[45]", line)]
    return [found[1] if (found := re.search(r" code=(\w+)", line)) else "none" for line in refused]


@pytest.mark.parametrize("accept", ["text/html,*/*", "application/json"])
def test_each_refusal_outside_of_the_api_has_its_code_in_the_log(
    capsys: pytest.CaptureFixture[str], accept: str
) -> None:
    make_user("root", staff=True)
    browser = Browser(headers={"accept": accept})
    for _ in range(4):
        answer = browser.post(URL, {"username": "root", "password": "guess"})
    browser.get("/nothing/")
    browser.get("/", headers={"host": "another.example"})
    Browser(enforce_csrf_checks=True, headers={"accept": accept}).post(URL, {"username": "root"})
    browser.force_login(make_user_with(USE_ADMIN_SITE))
    browser.get("/admin/auth/user/")

    assert answer.status_code == 429
    assert ("text/html" in answer.headers["Content-Type"]) == accept.startswith("text/html")
    assert codes_in(capsys) == [
        *["authentication_failed"] * 3,
        "throttled",
        "not_found",
        "unknown_host",
        "csrf_failed",
        "permission_denied",
    ]


@pytest.mark.parametrize("path", [URL, "/api/v1/me/", "/api-token-auth/"])
def test_few_passwords_are_checked_at_once(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr("fma_api.v1.limits.PATIENCE_S", 0.01)
    make_user("root", staff=True)
    said = {"username": "root", "password": PASSWORD}
    browser = Browser()

    def ask() -> int:
        if path == "/api/v1/me/":
            word = b64encode(f"root:{PASSWORD}".encode()).decode()
            return browser.get(path, headers={"authorization": f"Basic {word}"}).status_code
        if path == "/api-token-auth/":
            return browser.post(path, said, content_type="application/json").status_code
        return browser.post(path, said).status_code

    with ExitStack() as others:
        for number in range(AT_ONCE):
            others.enter_context(password_places.place(f"10.0.0.{number}"))
        assert ask() == 429
    with password_places.place("127.0.0.1"):  # of the same address
        assert ask() == 429
    assert ask() in (200, 302)


def test_an_account_is_not_guessed_from_many_addresses(settings: Settings) -> None:
    settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "NUM_PROXIES": 1}
    make_user("root", staff=True)
    statuses = [
        Browser(headers={"x-forwarded-for": f"10.0.0.{n}"})
        .post("/api-token-auth/", {"username": "Root", "password": "guess"}, content_type="application/json")
        .status_code
        for n in range(5)
    ]

    assert statuses == [400, 400, 400, 429, 429]


@pytest.mark.parametrize("path", [URL, "/api-token-auth/"])
def test_all_spellings_of_a_name_are_one_account(settings: Settings, path: str) -> None:
    settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "NUM_PROXIES": 1}
    make_user("1001", staff=True)
    spellings: list[object] = ["1001", " 1001", "1001\t", "\uff11\uff10\uff10\uff11", 1001]
    statuses = []
    for n, name in enumerate(spellings):
        browser = Browser(headers={"x-forwarded-for": f"10.0.0.{n}"})
        said = {"username": name, "password": "guess"}
        answer = browser.post(path, said, **({} if path == URL else {"content_type": "application/json"}))
        statuses.append(answer.status_code)

    assert statuses == [403 if path == URL else 400] * 3 + [429] * 2


def test_the_addresses_of_one_network_are_one_sender(settings: Settings) -> None:
    settings.FMA_TRUST_PROXY = True
    make_user("root", staff=True)

    def guess(account: str, address: str) -> int:
        browser = Browser(headers={"x-forwarded-for": address})
        said = {"username": account, "password": "guess"}
        return browser.post("/api-token-auth/", said, content_type="application/json").status_code

    assert [guess(f"user-{n}", f"2001:db8:0:1::{n}") for n in range(5)] == [400, 400, 400, 429, 429]
    assert guess("another", "2001:db8:0:2::1") == 400
    assert guess("another", "::1") == 400


def test_old_passwords_at_the_page_for_a_new_one_count_as_guesses() -> None:
    """A session may be somebody else's, left open."""
    browser = Browser()
    browser.force_login(make_user("root", staff=True))

    def change(old: str, new: str) -> int:
        said = {"old_password": old, "new_password1": new, "new_password2": new}
        return browser.post("/admin/password_change/", said).status_code

    assert [change(PASSWORD, "short") for _ in range(5)] == [200] * 5  # the old one is right
    assert [change("guess", "a-long-new-password") for _ in range(4)] == [200] * 3 + [429]
    assert browser.post(URL, {"username": "root", "password": PASSWORD}).status_code == 429


def test_a_new_password_is_set_as_before() -> None:
    user = make_user("root", staff=True)
    browser = Browser()
    browser.force_login(user)
    said = {"old_password": PASSWORD} | dict.fromkeys(
        ("new_password1", "new_password2"), "a-long-new-password"
    )

    assert browser.post("/admin/password_change/", said).status_code == 302
    user.refresh_from_db()
    assert user.check_password("a-long-new-password")
    assert browser.get("/admin/").status_code == 200
