"""Where the server listens: the addresses and names that `--host` takes."""

import socket

import pytest

from fma_api.cli import address
from fma_api.cli.problem import Problem
from tests.servers.free_port import free_port


@pytest.mark.parametrize(
    ("host", "ip"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("::", "::"),
    ],
)
def test_a_host_is_an_address(host: str, ip: str) -> None:
    assert address.check_free(host, free_port()) == ip


def test_the_machines_own_name_is_a_host() -> None:
    ip = address.check_free(name := socket.gethostname(), port := free_port())

    assert ip in {info[4][0] for info in socket.getaddrinfo(name, port)}


@pytest.mark.parametrize("host", ["nobody.invalid", "a..b", "", "203.0.113.7", "[::1", "x" * 300])
def test_a_host_that_is_not_here_is_said(host: str) -> None:
    with pytest.raises(Problem, match="cannot listen on"):
        address.check_free(host, free_port())


def test_a_port_in_use_is_said_for_a_name() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(Problem, match="of localhost is in use"),
    ):
        address.check_free("localhost", taken.getsockname()[1])


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("[::1]", "http://[::1]:80"),
        ("fe80::1", "http://[fe80::1]:80"),
        ("fma.example.org", "http://fma.example.org:80"),
    ],
)
def test_the_url_is_what_a_person_would_type(host: str, url: str) -> None:
    assert address.url(host, 80) == url
