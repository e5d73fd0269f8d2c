"""Requests of the server go to allowed hosts and addresses alone, whatever names, redirects and answers say."""

import ipaddress
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import LazySettings
from hypothesis import given
from hypothesis import strategies as st

from fma_django.outgoing import RequestFailed, fetch, is_allowed
from tests.servers.certificates import Authority
from tests.servers.https import Answer, HttpsServer

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
PUBLIC = ("93.184.216.34", "8.8.8.8", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:8.8.8.8")
NOT_PUBLIC = (
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "100.100.100.200",
    "169.254.169.254",
    "168.63.129.16",
    "192.0.0.192",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b:1::7f00:1",
    "2002:7f00:1::",
    "2001:0:7f00:1::",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
)


@pytest.fixture
def authority(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """The authority that this process trusts."""
    made = Authority(tmp_path / "authority", "our own")
    monkeypatch.setenv("SSL_CERT_FILE", str(made.certificate))
    return made


@pytest.fixture
def server(authority: Authority, settings: LazySettings) -> Iterator[HttpsServer]:
    """A server at an address that is allowed."""
    settings.FMA_OUTGOING_NETWORKS = LOOPBACK
    with HttpsServer(authority, {"/": Answer(b"the body")}) as started:
        yield started


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_allowed(address, ())


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_other_addresses_are_allowed_where_their_network_is(address: str) -> None:
    assert not is_allowed(address, ())
    own = ipaddress.ip_address(address.partition("%")[0])
    shown = getattr(own, "ipv4_mapped", None) or own
    assert is_allowed(address, (ipaddress.ip_network(shown),))


@given(st.ip_addresses(v=4))
def test_an_address_inside_of_another_one_is_no_way_around(address: ipaddress.IPv4Address) -> None:
    if not is_allowed(str(address), ()):
        assert not is_allowed(f"::ffff:{address}", ())
        assert not is_allowed(str(ipaddress.ip_address((0x64FF9B << 96) | int(address))), ())
        assert not is_allowed(str(ipaddress.ip_address((0x2002 << 112) | (int(address) << 80))), ())


def test_an_answer_is_read(server: HttpsServer) -> None:
    assert fetch(server.url) == b"the body"


def test_a_private_address_is_never_connected_to(server: HttpsServer, settings: LazySettings) -> None:
    settings.FMA_OUTGOING_NETWORKS = ()
    for host in ("localhost", "127.0.0.1", "2130706433", "0x7f000001", "127.1", "[::ffff:127.0.0.1]"):
        with pytest.raises(RequestFailed, match="no public address|unknown"):
            fetch(f"https://{host}:{server.port}/")
    assert server.asked == []


def test_the_address_that_was_checked_is_the_one_that_is_connected_to(
    server: HttpsServer, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is public when it is looked up first, and this machine afterwards."""
    settings.FMA_OUTGOING_NETWORKS = (ipaddress.ip_network("198.51.100.0/24"),)
    answers = iter(["198.51.100.7"])
    connected: list[str] = []

    def look_up(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        address = next(answers, "127.0.0.1")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    def connect(address: tuple[str, int], *_: Any, **__: Any) -> socket.socket:
        connected.append(address[0])
        raise OSError("nobody is there")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(RequestFailed, match="nobody is there"):
        fetch("https://rebinding.example/")
    assert connected == ["198.51.100.7"]


@pytest.mark.parametrize(
    "location",
    ["https://10.0.0.1/", "http://localhost/", "//169.254.169.254/", "https://user@localhost/", "file:///etc/passwd",
     "https://other.example/", "https://[::1]/", "https://[", ""],
)  # fmt: skip
def test_a_redirect_is_checked_like_the_first_request(
    server: HttpsServer, settings: LazySettings, location: str
) -> None:
    settings.FMA_OUTGOING_HOSTS = ("localhost", "10.0.0.1", "169.254.169.254", "[::1]")
    server.answers["/away"] = Answer(status=302, headers={"Location": location})
    with pytest.raises(RequestFailed):
        fetch(f"{server.url}/away")
    assert set(server.asked) == {"/away"}


def test_redirects_end(server: HttpsServer) -> None:
    server.answers["/round"] = Answer(status=307, headers={"Location": "/round"})
    server.answers["/once"] = Answer(status=301, headers={"Location": "/"})
    assert fetch(f"{server.url}/once") == b"the body"
    with pytest.raises(RequestFailed, match="more than 3 redirects"):
        fetch(f"{server.url}/round")
    assert server.asked.count("/round") == 4


@pytest.mark.parametrize("hosts", [("fma.example.org",), (".localhost.example",), ("localhost.example",)])
def test_other_hosts_are_not_asked(
    server: HttpsServer, settings: LazySettings, hosts: tuple[str, ...]
) -> None:
    settings.FMA_OUTGOING_HOSTS = hosts
    with pytest.raises(RequestFailed, match="FMA_OUTGOING_HOSTS"):
        fetch(server.url)
    assert server.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/",
        "ftp://localhost/",
        "https:///",
        "https://a:b@localhost/",
        "https://localhost:x/",
        "",
    ],
)
def test_what_is_no_plain_https_address_is_refused(url: str) -> None:
    with pytest.raises(RequestFailed) as refused:
        fetch(url)
    assert "a:b" not in str(refused.value)


def test_a_proxy_of_the_environment_is_not_used(server: HttpsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert fetch(server.url) == b"the body"


def test_a_certificate_of_nobody_that_is_trusted_is_refused(
    server: HttpsServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(Authority(tmp_path / "other", "another").certificate))
    with pytest.raises(RequestFailed, match="certificate verify failed"):
        fetch(server.url)


@pytest.mark.parametrize(
    "answer",
    [Answer(bytes(2**20)), Answer(bytes(2**20), headers={"Content-Length": "10000000000"}),
     Answer(b"x", status=500), Answer(b"x", headers={"Content-Encoding": "gzip"})],
    ids=["long", "announced as long", "an error", "compressed"],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(server: HttpsServer, answer: Answer) -> None:
    server.answers["/odd"] = answer
    with pytest.raises(RequestFailed):
        fetch(f"{server.url}/odd", most_bytes=1000)


def test_a_body_that_drips_in_is_given_up(server: HttpsServer) -> None:
    server.answers["/slow"] = Answer(bytes(100), pause_s=0.1)
    begun = time.monotonic()
    with pytest.raises(RequestFailed):
        fetch(f"{server.url}/slow", timeout_s=0.5)
    assert time.monotonic() - begun < 3


def test_a_server_that_says_nothing_is_given_up(settings: LazySettings) -> None:
    settings.FMA_OUTGOING_NETWORKS = LOOPBACK
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(RequestFailed):
            fetch(f"https://127.0.0.1:{silent.getsockname()[1]}/", timeout_s=0.3)
    assert time.monotonic() - begun < 3
