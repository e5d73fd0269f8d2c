"""Every kind of answer tells browsers how little they may do with it."""

from typing import Any

import pytest
from django.conf import LazySettings
from django.http import HttpResponse
from django.test import Client as Browser
from django.test import override_settings
from django.urls import path

from fma_api import security_headers
from fma_api.security_headers import ADMIN_PAGE, DEBUG_PAGE, HEADERS, NO_PAGE, PAGE
from tests.api.callers import API, SAFETENSORS, as_client, as_user
from tests.records import WEIGHTS, make_aggregate, make_client, make_model, make_user

pytestmark = pytest.mark.django_db

HTML = {"Accept": "text/html"}
ANSWERS = {
    "json": ("GET", "/api/v1/", {}, NO_PAGE),
    "no credential": ("GET", "/api/v1/models/", {}, NO_PAGE),
    "no path of the API": ("GET", "/api/v1/nothing/", HTML, NO_PAGE),
    "no method": ("DELETE", "/api/v1/models/", {}, NO_PAGE),
    "no path, to a program": ("GET", "/nothing", {}, NO_PAGE),
    "no path, to a person": ("GET", "/nothing", HTML, PAGE),
    "unknown host": ("GET", "/", {"Host": "evil.example"}, NO_PAGE),
    "unknown host, to a person": ("GET", "/admin/", {"Host": "evil.example", **HTML}, ADMIN_PAGE),
    "redirect": ("GET", "/", {}, PAGE),
    "login": ("GET", "/admin/login/", {}, ADMIN_PAGE),
    "form without token": ("POST", "/admin/login/", {}, ADMIN_PAGE),
    "documentation": ("GET", "/api/docs/", {}, PAGE),
    "script of the documentation": ("GET", "/api/docs/?script", {}, NO_PAGE),
    "schema": ("GET", "/api/schema/", {}, NO_PAGE),
    "health": ("GET", "/healthz", {}, NO_PAGE),
    "style": ("GET", "/static/unfold/css/styles.css", {}, NO_PAGE),
    "no file": ("GET", "/static/nothing.css", HTML, PAGE),
}


def assert_guarded(response: Any, policy: str) -> None:
    assert response.headers["Content-Security-Policy"] == policy
    assert {name: response.headers.get(name) for name in HEADERS} == HEADERS


@pytest.mark.parametrize("kind", ANSWERS)
def test_each_kind_of_answer_has_every_header(kind: str) -> None:
    method, url, headers, policy = ANSWERS[kind]

    response = Browser(enforce_csrf_checks=True).generic(method, url, headers=headers)

    response.close()
    assert_guarded(response, policy)
    assert is_kept_by_nobody(response) or kind == "style"


def is_kept_by_nobody(response: Any) -> bool:
    return "no-store" in response.headers["Cache-Control"]


@pytest.mark.parametrize(
    "path",
    [
        "me/",
        "model_artifacts/",
        "model_aggregates/{aggregate}/",
        "models/{model}/get_latest_aggregate/",
        "models/{model}/get_latest_aggregate/?after=0",
        "models/{model}/rounds/",
        "nothing/",
    ],
)
@pytest.mark.parametrize("caller", ["client", "user"])
def test_no_cache_keeps_what_one_caller_is_told(caller: str, path: str) -> None:
    owner = make_user()
    model = make_model(owner, initial_model=WEIGHTS)
    device = make_client(model)
    aggregate = make_aggregate(model, device.client)
    api = as_client(device) if caller == "client" else as_user(owner)

    response = api.get(f"{API}{path.format(model=model.pk, aggregate=aggregate.pk)}")

    response.close()
    assert response.status_code in (200, 404)
    assert is_kept_by_nobody(response)


@pytest.mark.parametrize("accept", [SAFETENSORS, "application/json"])
def test_weights_are_kept_by_their_receiver_and_asked_for_again(accept: str) -> None:
    model = make_model(initial_model=WEIGHTS)
    url = f"{API}models/{model.pk}/get_latest_model/"

    response = as_client(make_client(model)).get(url, headers={"Accept": accept})

    response.close()
    assert response.headers["Cache-Control"] == "private, no-cache"


def test_no_policy_allows_inline_scripts_or_a_frame_outside_of_the_debug_page() -> None:
    for policy in (NO_PAGE, PAGE, ADMIN_PAGE):
        parts = dict(part.split(" ", 1) for part in policy.split("; "))
        assert parts["default-src"] == parts["frame-ancestors"] == "'none'"
        assert "unsafe-inline" not in parts.get("script-src", "")
    assert "unsafe-eval" not in PAGE


def test_weights_are_no_page() -> None:
    model = make_model(initial_model={"w": [1.0]})
    made = make_client(model)

    response = Browser().get(
        f"/api/v1/model_artifacts/{model.artifacts.get().pk}/weights/",
        headers={"CLIENT-UUID": str(made.credential), "Accept": SAFETENSORS},
    )
    response.close()

    assert response.status_code == 200
    assert_guarded(response, NO_PAGE)


def test_plain_requests_are_redirected_with_every_header(settings: LazySettings) -> None:
    settings.SECURE_SSL_REDIRECT = True

    response = Browser().get("/admin/login/")

    assert response.status_code == 301
    assert_guarded(response, ADMIN_PAGE)


def breaks(request: object) -> HttpResponse:
    raise RuntimeError("broken")


urlpatterns = [path("breaks", breaks)]
handler500 = "fma_api.problems.server_error"


@pytest.mark.parametrize(("is_debugged", "policy"), [(False, PAGE), (True, DEBUG_PAGE)])
def test_a_broken_request_has_every_header(is_debugged: bool, policy: str) -> None:
    browser = Browser(raise_request_exception=False)

    with override_settings(ROOT_URLCONF=__name__, DEBUG=is_debugged):
        response = browser.get("/breaks", headers=HTML)

    assert response.status_code == 500
    assert_guarded(response, policy)


def test_the_answer_outside_of_django_has_every_header() -> None:
    from fma_api.front import django

    assert_guarded(django.server_error(), NO_PAGE)


def test_a_view_may_be_stricter() -> None:
    response = security_headers.SecurityHeaders(
        lambda request: HttpResponse(headers={"Referrer-Policy": "no-referrer"})
    )(Browser().get("/healthz").wsgi_request)

    assert response.headers["Referrer-Policy"] == "no-referrer"


def test_the_documentation_has_the_token_of_forms_in_its_script_alone() -> None:
    browser = Browser(enforce_csrf_checks=True)
    browser.force_login(make_user("anna"))

    page, script = (browser.get(f"/api/docs/{query}").content.decode() for query in ("", "?script"))

    assert "<script>" not in page
    assert "X-CSRFTOKEN" in script


def test_login_leads_to_the_admin_and_gives_cookies_that_no_script_reads() -> None:
    user = make_user("anna", staff=True)
    user.is_superuser = True
    user.set_password("a-long-password-1")
    user.save()

    browser = Browser()
    response = browser.post("/admin/login/", {"username": "anna", "password": "a-long-password-1"})

    assert (response.status_code, response.headers["Location"]) == (302, "/")
    assert set(browser.cookies) == {"fma_session", "fma_csrf"}
    assert all(cookie["httponly"] and cookie["samesite"] == "Lax" for cookie in browser.cookies.values())
