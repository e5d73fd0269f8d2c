"""A prefix is a plain path, and none that the server itself answers to."""

from typing import Any

import pytest
from django.conf import LazySettings
from django.urls import get_resolver
from structlog.testing import capture_logs

from fma_api import url_prefix

NO_PATHS = (
    "fl",
    "//evil.example",
    "/fl//",
    "/a//b",
    "/..",
    "/fl/..",
    "/../admin",
    "/.",
    "/fl/./x",
    "/fl\\..",
    "/fl?x=1",
    "/fl#x",
    "/fl\x00",
    "/fl\x7f",
    "/f\nl",
    "/f\tl",
    "/f l",
    "/fl%2e%2e",
    "/größe",
)
OF_THE_SERVER = ("/api", "/api/", "/api/v1", "/api/v1/models", "/admin", "/admin/", "/static", "/readyz")
TAKEN = ("", "/", "/fl", "/fl/", "/a/b-c", "/api/fl", "/fl/api", "/apis", "/..fl", "/fl...", "/v1.2/fl")


def placed(header: str, path: str = "/api/v1/models/") -> dict[str, Any]:
    environ = {"HTTP_X_FORWARDED_PREFIX": header, "PATH_INFO": path, "SCRIPT_NAME": ""}
    url_prefix.place(environ)
    return environ


@pytest.mark.parametrize("value", [*NO_PATHS, *OF_THE_SERVER])
def test_a_setting_that_cannot_be_a_prefix_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="such as /fl"):
        url_prefix.parsed(value)


@pytest.mark.parametrize("value", [*NO_PATHS, *OF_THE_SERVER])
def test_a_header_that_cannot_be_a_prefix_is_ignored_with_a_word(settings: LazySettings, value: str) -> None:
    settings.FMA_TRUST_PROXY = True
    url_prefix._forwarded.cache_clear()

    with capture_logs() as logs:
        environ, again = placed(value), placed(value)

    assert environ["SCRIPT_NAME"] == again["SCRIPT_NAME"] == ""
    assert environ["PATH_INFO"] == "/api/v1/models/"
    assert [line["event"] for line in logs] == ["forwarded_prefix_ignored"]
    assert repr(value) in logs[0]["reason"]


@pytest.mark.parametrize("value", TAKEN)
def test_a_plain_path_is_taken_in_both_ways(settings: LazySettings, value: str) -> None:
    settings.FMA_TRUST_PROXY = True

    prefix = url_prefix.parsed(value)

    assert prefix == value.rstrip("/")
    for path in ("/api/v1/models/", f"{prefix}/api/v1/models/"):
        environ = placed(value, path)
        assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == (prefix, "/api/v1/models/")


def test_no_path_of_the_server_is_taken_for_a_prefix() -> None:
    routes = [str(pattern.pattern).rstrip("/") for pattern in get_resolver().url_patterns]

    for route in filter(None, [*routes, "static"]):
        with pytest.raises(ValueError, match="those of the server itself"):
            url_prefix.parsed(f"/{route}")
