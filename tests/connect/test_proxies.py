"""The proxies of the environment: who is asked through one, and what errors say of them."""

import logging
import sys
import traceback

import httpx
import pytest

from fma_connect import Client, DeveloperClient, WebClient
from fma_connect.exceptions import APIException, ConnectionFailed, InvalidRequest, ServerFailed
from fma_connect.proxies import Proxies
from tests.connect.conftest import FakeTime
from tests.connect.scripted_server import Reply, ScriptedServer, json_reply

PROXY = "http://proxy.example:3128"
# Nothing listens there.
DEAD = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000/",
        "http://LOCALHOST/",
        "http://localhost./",
        "http://fma.localhost/",
        "http://127.0.0.1:8000/",
        "http://127.9.9.9/",
        "http://[::1]:8000/",
        "http://[::ffff:127.0.0.1]/",
        "http://0.0.0.0:8000/",
        "https://127.0.0.1/",
    ],
)
def test_this_machine_is_never_asked_through_a_proxy(url: str) -> None:
    assert Proxies({"http": PROXY, "https": PROXY, "all": PROXY}, ()).of(httpx.URL(url)) is None


@pytest.mark.parametrize(
    ("exception", "url", "is_excepted"),
    [
        ("*", "https://fma.example.org/", True),
        ("example.org", "https://fma.example.org/", True),
        (".example.org", "https://fma.example.org/", True),
        ("*.example.org", "https://fma.example.org/", True),
        (".example.org", "https://example.org/", True),
        ("example.org", "https://notexample.org/", False),
        ("example.org:443", "https://fma.example.org/", True),
        ("example.org:8443", "https://fma.example.org/", False),
        ("example.org:8443", "https://fma.example.org:8443/", True),
        ("https://fma.example.org", "https://fma.example.org/", True),
        ("10.0.0.0/8", "http://10.1.2.3/", True),
        ("10.0.0.0/8", "http://11.1.2.3/", False),
        ("10.0.0.7/8", "http://10.1.2.3/", True),
        ("10.0.0.0/8", "http://10.example.org/", False),
        ("192.168.1.5", "http://192.168.1.5/", True),
        ("192.168.1.5", "http://192.168.1.50/", False),
        ("192.168.1.5:8000", "http://192.168.1.5:8000/", True),
        ("fd00::/8", "http://[fd00::1]/", True),
        ("fd00::1", "http://[fd00::1]/", True),
        ("[fd00::1]:8000", "http://[fd00::1]:8000/", True),
        ("[fd00::1]:8000", "http://[fd00::1]:9000/", False),
        ("fd00::/8", "http://10.0.0.1/", False),
        ("10.0.0.0/99", "http://10.0.0.1/", False),
        ("", "http://10.0.0.1/", False),
    ],
)
def test_exceptions_are_hosts_domains_addresses_and_networks(
    environment: pytest.MonkeyPatch, exception: str, url: str, is_excepted: bool
) -> None:
    environment.setenv("HTTP_PROXY", PROXY)
    environment.setenv("HTTPS_PROXY", PROXY)
    environment.setenv("NO_PROXY", f"first.example, {exception}")

    assert Proxies.of_environment().of(httpx.URL(url)) == (None if is_excepted else PROXY)


def test_proxy_is_chosen_by_scheme(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HTTP_PROXY", "plain.example:3128")
    environment.setenv("ALL_PROXY", "socks5://all.example:1080")
    proxies = Proxies.of_environment()

    assert proxies.of(httpx.URL("http://a.example/")) == "http://plain.example:3128"
    assert proxies.of(httpx.URL("https://a.example/")) == "socks5://all.example:1080"


def test_server_on_this_machine_is_reached_past_the_proxy(
    environment: pytest.MonkeyPatch, server: ScriptedServer, fake_time: FakeTime
) -> None:
    environment.setenv("HTTP_PROXY", DEAD)
    environment.setenv("ALL_PROXY", DEAD)
    server.on("GET", "api/v1/me/", json_reply({"kind": "user"}))

    with DeveloperClient(server.url, token="t0ken", **fake_time.injected) as developer:
        assert developer.me() == {"kind": "user"}


def test_other_server_is_asked_through_the_proxy(
    environment: pytest.MonkeyPatch, server: ScriptedServer, fake_time: FakeTime
) -> None:
    environment.setenv("HTTP_PROXY", server.url)
    server.on("GET", "api/v1/me/", json_reply({"kind": "user"}))

    with DeveloperClient("http://fma.example", token="t0ken", **fake_time.injected) as developer:
        assert developer.me() == {"kind": "user"}

    assert server.seen[0].headers["host"] == "fma.example"


def test_error_names_the_proxy_without_its_password(
    environment: pytest.MonkeyPatch, fake_time: FakeTime, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="fma_connect")
    environment.setenv("HTTP_PROXY", "http://user:hunter2@127.0.0.1:9")

    with (
        DeveloperClient("http://fma.example", token="t0ken", timeout_s=5, **fake_time.injected) as developer,
        pytest.raises(
            ConnectionFailed, match=r"through the proxy http://127\.0\.0\.1:9 \(of the environment\)"
        ) as caught,
    ):
        developer.me()

    assert "hunter2" not in str(caught.value) + caplog.text


@pytest.mark.parametrize(
    "proxy",
    [
        "http://user:hunter2@proxy.example:port",
        "http://user:hunter2/x@proxy.example:80",
        "http://user:12/hunter2@proxy.example:80",
        "http://user:12#hunter2@proxy.example",
        "http://a@b:12/hunter2@proxy.example",
        "ftp://user:hunter2@proxy.example",
    ],
)
def test_error_of_an_unreadable_proxy_shows_no_part_of_its_password(
    environment: pytest.MonkeyPatch, fake_time: FakeTime, caplog: pytest.LogCaptureFixture, proxy: str
) -> None:
    caplog.set_level(logging.DEBUG, logger="fma_connect")
    environment.setenv("HTTP_PROXY", proxy)

    with (
        DeveloperClient("http://fma.invalid", token="t0ken", timeout_s=1, **fake_time.injected) as developer,
        pytest.raises(ConnectionFailed) as caught,
    ):
        developer.me()

    shown = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert "hunter2" not in shown
    assert "user:" not in shown
    assert ":12" not in shown


@pytest.mark.parametrize(("status", "error"), [(407, InvalidRequest), (503, ServerFailed)])
def test_page_of_a_proxy_is_told_to_be_one(
    environment: pytest.MonkeyPatch,
    server: ScriptedServer,
    fake_time: FakeTime,
    status: int,
    error: type[Exception],
) -> None:
    environment.setenv("HTTP_PROXY", server.url)
    server.on("GET", "api/v1/me/", Reply(status, b"<html>no</html>"))

    with (
        DeveloperClient("http://fma.example", token="t0ken", timeout_s=5, **fake_time.injected) as developer,
        pytest.raises(error, match=r"through the proxy http://127\.0\.0\.1:\d+ "),
    ):
        developer.me()


@pytest.mark.parametrize(
    ("proxy", "why"),
    [
        ("socks5://proxy.example:1080", r"pip install 'httpx\[socks\]'"),
        ("ftp://proxy.example:21", "must look like http://host:port"),
        ("http://proxy.example:port", "must look like http://host:port"),
    ],
)
def test_proxy_that_cannot_be_used_is_told_at_once(
    environment: pytest.MonkeyPatch, fake_time: FakeTime, proxy: str, why: str
) -> None:
    environment.setitem(sys.modules, "socksio", None)  # as where it is not installed
    environment.setenv("ALL_PROXY", proxy)

    with (
        Client(
            "http://fma.example", 3, credential_file=None, telemetry=False, **fake_time.injected
        ) as client,
        pytest.raises(ConnectionFailed, match=why),
    ):
        client.pull()
    with pytest.raises(APIException, match=why):
        WebClient(3, url="http://fma.example").register()

    assert fake_time.sleeps == []


def test_certificates_that_are_missing_are_told(environment: pytest.MonkeyPatch, fake_time: FakeTime) -> None:
    environment.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")

    with (
        DeveloperClient("https://fma.example", token="t0ken", **fake_time.injected) as developer,
        pytest.raises(ConnectionFailed, match="SSL_CERT_FILE"),
    ):
        developer.me()
