"""One sender of slow bodies leaves threads to all others, and what watches over the server is always answered."""

import json
import threading
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from structlog.testing import capture_logs

from fma_api import sender_address as sender_addresses
from fma_api.front import body_places
from fma_api.sender_address import network_of, sender_address
from tests.front.granian import Exchange, Handler, Running, running

PIECE = bytes(256 * 1024)


def read(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(len(request.read())))


def slow(front: Running, **said: Any) -> Exchange:
    """A large body that stalls."""
    return front.begin(PIECE, None, method="POST", size=2**30, **said)


def is_read(exchange: Exchange) -> bool:
    return exchange.has_been_read.is_set()


def of_client(credential: str) -> list[tuple[str, str]]:
    return [("client-uuid", credential)]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/fl/healthz"])
def test_health_is_answered_while_all_threads_are_busy(path: str) -> None:
    go_on = threading.Event()

    def hold(request: HttpRequest) -> HttpResponse:
        if not request.path.endswith("z"):
            go_on.wait(10)
        return HttpResponse()

    with running(Handler(hold), threads=2) as front:
        held = [front.begin(path="/busy") for _ in range(10)]
        try:
            assert front.begin(path=path).wait().status == 200
        finally:
            go_on.set()
        assert all(each.wait().status == 200 for each in held)


def test_one_client_with_forty_slow_bodies_leaves_the_others_alone() -> None:
    with running(Handler(read), threads=8) as front:
        hostile = [slow(front, headers=of_client("a"), client=f"192.0.2.{number}:1") for number in range(40)]
        front.until(lambda: sum(map(is_read, hostile)) == 4)

        honest = front.begin(PIECE, method="POST", headers=of_client("b"))
        assert honest.wait().body == str(len(PIECE)).encode()
        assert front.begin().wait().status == 200
        assert sum(map(is_read, hostile)) == 4


def test_one_address_leaves_places_to_the_others() -> None:
    with running(Handler(read), threads=16) as front:
        hostile = [slow(front, headers=of_client(str(number))) for number in range(40)]
        front.until(lambda: sum(map(is_read, hostile)) == 8)

        other = front.begin(PIECE, method="POST", client="192.0.2.1:1")
        assert other.wait().status == 200
        assert sum(map(is_read, hostile)) == 8


def test_all_senders_together_leave_threads_to_small_requests() -> None:
    with running(Handler(read), threads=4) as front:
        hostile = [slow(front, client=f"192.0.2.{number}:1") for number in range(40)]
        front.until(lambda: sum(map(is_read, hostile)) == 3)

        assert front.begin(b"small", method="POST").wait().body == b"5"


def test_a_network_of_ipv6_is_one_sender_and_ipv4_within_it_is_ipv4() -> None:
    network = network_of
    assert network("2001:db8::1") == network("2001:db8::ffff:1") != network("2001:db8:0:1::1")
    assert network("::ffff:192.0.2.1") == network("192.0.2.1") != network("192.0.2.2")
    assert network("unknown") == "unknown"


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:49152", "192.0.2.1"),
        ("10.0.0.1, 192.0.2.1:1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("unknown", "unknown"),
        ("_hidden:7", "_hidden"),
        (" ", "198.51.100.1"),
        (":80", "198.51.100.1"),
    ],
)
def test_the_port_of_a_forwarded_connection_does_not_make_another_sender(written: str, address: str) -> None:
    with override_settings(FMA_TRUST_PROXY=True):
        environ = {"HTTP_X_FORWARDED_FOR": written, "REMOTE_ADDR": "198.51.100.1"}
        assert sender_address(environ) == address


@pytest.mark.parametrize("trusted", [True, False])
def test_the_forwarded_address_counts_behind_a_trusted_proxy(trusted: bool) -> None:
    with override_settings(FMA_TRUST_PROXY=trusted), running(Handler(read), threads=40) as front:
        hostile = [
            slow(front, headers=[("x-forwarded-for", f"10.0.0.1, 192.0.2.{number}")]) for number in range(20)
        ]
        most = 20 if trusted else 8
        front.until(lambda: sum(map(is_read, hostile)) == most)


def test_a_body_that_waits_too_long_is_a_429(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_places, "WAIT_S", 0.05)
    with running(Handler(read), threads=8) as front:
        hostile = [slow(front, headers=of_client("a")) for _ in range(4)]
        front.until(lambda: all(map(is_read, hostile)))

        refused = front.begin(PIECE, method="POST", headers=of_client("a")).wait()

        assert (refused.status, refused.headers["retry-after"]) == (429, "10")
        assert json.loads(refused.body)["code"] == "too_many_bodies"
        front.until(lambda: refused.taken_bytes == len(PIECE))


def test_a_place_is_free_again_after_each_body() -> None:
    with running(Handler(read), threads=4) as front:
        for _ in range(30):
            assert front.begin(PIECE, method="POST", headers=of_client("a")).wait().status == 200
        front.until(lambda: not front.front._bodies._of_senders)


def test_a_proxy_that_is_not_trusted_is_named_once_and_not_believed() -> None:
    sender_addresses._warned.clear()
    with capture_logs() as logs:
        for _ in range(3):
            for number in range(2 * sender_addresses.MOST_WARNINGS):
                address = f"10.0.0.{number}"
                forwarded = {"REMOTE_ADDR": address, "HTTP_X_FORWARDED_FOR": "198.51.100.7"}
                assert sender_address(forwarded) == address

    named = [entry["address"] for entry in logs if entry["event"] == "proxy_not_trusted"]
    assert named == [f"10.0.0.{number}" for number in range(sender_addresses.MOST_WARNINGS)]
