import logging
import random
import ssl
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from fma_connect.digest import content_digest
from fma_connect.encoding import BytesBody
from fma_connect.exceptions import (
    ConnectionFailed,
    InvalidRequest,
    ServerFailed,
    TooManyRequests,
    UnexpectedAnswer,
)
from fma_connect.retry import RetryPolicy
from fma_connect.transport import Transport, base_url
from tests.connect.conftest import FakeTime
from tests.connect.recording import Recording
from tests.connect.scripted_server import DROP, Reply, ScriptedServer, Seen, json_reply


def make(url: str, fake_time: FakeTime, **changes: Any) -> Transport:
    return Transport(url, **{"timeout_s": 60, "retry": RetryPolicy(), **fake_time.injected, **changes})


@pytest.fixture
def transport(server: ScriptedServer, fake_time: FakeTime) -> Iterator[Transport]:
    transport = make(server.url, fake_time)
    yield transport
    transport.close()


OK = json_reply({"ok": True})


@pytest.mark.parametrize(
    "failure",
    [
        DROP,
        Reply(502, b"<html>"),
        json_reply({"detail": "starting"}, 503),
        Reply(504),
        json_reply({}, 429),
        Reply(200, b'{"ok": true}', truncate_to=4),
        Reply(200, b'{"ok": tru3}', {"Content-Digest": content_digest(b'{"ok": true}')}),
        Reply(200, b"not gzip", {"Content-Encoding": "gzip"}),
    ],
)
def test_passing_failure_is_retried(
    server: ScriptedServer, transport: Transport, fake_time: FakeTime, failure: Reply
) -> None:
    server.on("GET", "thing", failure, failure, OK)

    assert transport.call("GET", "thing").json() == {"ok": True}
    assert len(server.seen) == 3
    assert len(fake_time.sleeps) == 2


def test_post_keeps_its_idempotency_key_and_body_on_every_attempt(
    server: ScriptedServer, transport: Transport
) -> None:
    server.on("POST", "thing", DROP, Reply(503), OK)
    body = random.Random(3).randbytes(3 * 2**20 + 17)

    transport.call("POST", "thing", body=BytesBody(body, "application/x-weights"))
    transport.call("POST", "thing", body=body)

    *attempts, another = server.seen
    assert all(seen.body == body for seen in attempts)
    assert {seen.headers["content-length"] for seen in attempts} == {str(len(body))}
    assert {seen.headers["content-digest"] for seen in attempts} == {content_digest(body)}
    assert {seen.headers["content-type"] for seen in attempts} == {"application/x-weights"}
    assert len({seen.headers["idempotency-key"] for seen in attempts}) == 1
    assert another.headers["idempotency-key"] != attempts[0].headers["idempotency-key"]


def test_get_carries_no_idempotency_key(server: ScriptedServer, transport: Transport) -> None:
    server.on("GET", "thing", OK)

    transport.call("GET", "thing", params={"a": "b c"})

    assert "idempotency-key" not in server.seen[0].headers
    assert server.seen[0].query == {"a": "b c"}


def test_retry_after_is_waited_for(server: ScriptedServer, transport: Transport, fake_time: FakeTime) -> None:
    server.on("GET", "thing", json_reply({}, 429, Retry_After="17"), OK)

    transport.call("GET", "thing")

    assert fake_time.sleeps == [17]


def test_retry_after_beyond_the_time_limit_is_not_waited_for(
    server: ScriptedServer, transport: Transport, fake_time: FakeTime
) -> None:
    server.on("GET", "thing", json_reply({"detail": "slow down"}, 429, Retry_After="90"))

    with pytest.raises(TooManyRequests, match="slow down") as caught:
        transport.call("GET", "thing")

    assert caught.value.retry_after_s == 90
    assert fake_time.sleeps == []


def test_lasting_refusal_is_not_retried(server: ScriptedServer, transport: Transport) -> None:
    server.on("POST", "thing", json_reply({"code": "shape_mismatch", "detail": "wrong"}, 422))

    with pytest.raises(InvalidRequest, match="422 shape_mismatch: wrong"):
        transport.call("POST", "thing", json_body={})

    assert len(server.seen) == 1


def test_time_limit_ends_the_retries_with_the_last_refusal(
    server: ScriptedServer, transport: Transport, fake_time: FakeTime
) -> None:
    server.on("GET", "thing", Reply(503, b"down"))

    with pytest.raises(ServerFailed, match="503 http_503: down"):
        transport.call("GET", "thing")

    assert 0 < sum(fake_time.sleeps) <= 60
    assert len(server.seen) == len(fake_time.sleeps) + 1


def test_unreachable_server_is_told_with_its_address(fake_time: FakeTime) -> None:
    transport = make("http://127.0.0.1:9", fake_time, timeout_s=5)

    with pytest.raises(
        ConnectionFailed, match=r"no answer to GET http://127\.0\.0\.1:9/thing in \d+ attempts"
    ):
        transport.call("GET", "thing")


def test_attempts_can_be_limited(server: ScriptedServer, fake_time: FakeTime) -> None:
    server.on("GET", "thing", DROP)

    with pytest.raises(ConnectionFailed, match="in 1 attempt "):
        make(server.url, fake_time, retry=RetryPolicy(max_attempts=1)).call("GET", "thing")


def test_endless_answer_ends_at_the_time_limit(fake_time: FakeTime) -> None:
    def trickle() -> Iterator[bytes]:
        while True:
            fake_time.now_s += 7
            yield b" "

    http = httpx.MockTransport(lambda request: httpx.Response(200, content=trickle()))

    with pytest.raises(ConnectionFailed, match="time limit of the call passed while reading"):
        make("https://example.org", fake_time, http=http).call("GET", "thing")


def test_slow_sending_ends_at_the_time_limit(fake_time: FakeTime) -> None:
    class Slow(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            for _ in request.stream:
                fake_time.now_s += 45
            return httpx.Response(200)

    with pytest.raises(ConnectionFailed, match="time limit of the call passed while sending"):
        make("https://example.org", fake_time, http=Slow()).call(
            "POST", "thing", body=bytes(3 * 2**20), timeout_s=60
        )


def test_large_body_on_a_slow_line_takes_its_time(fake_time: FakeTime) -> None:
    class Slow(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            for _ in request.stream:
                fake_time.now_s += 45
            return httpx.Response(200, content=self._slowly())

        def _slowly(self) -> Iterator[bytes]:
            for _ in range(5):
                fake_time.now_s += 45
                yield bytes(2**20)

    answer = make("https://example.org", fake_time, http=Slow()).call("POST", "thing", body=bytes(3 * 2**20))

    assert len(answer.body) == 5 * 2**20


def test_large_body_that_stands_still_ends_at_the_time_limit(fake_time: FakeTime) -> None:
    class Still(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            assert isinstance(request.stream, httpx.SyncByteStream)
            for sent, _ in enumerate(request.stream):
                fake_time.now_s += 1 if sent < 2 else 2000
            return httpx.Response(200)

    with pytest.raises(ConnectionFailed, match="time limit of the call passed"):
        make("https://example.org", fake_time, http=Still()).call("POST", "thing", body=bytes(5 * 2**20))


def test_time_limit_of_the_whole_counts_transfers(fake_time: FakeTime) -> None:
    def slowly() -> Iterator[bytes]:
        for _ in range(5):
            fake_time.now_s += 45
            yield bytes(2**20)

    http = httpx.MockTransport(lambda request: httpx.Response(200, content=slowly()))
    transport = make("https://example.org", fake_time, http=http)

    with pytest.raises(ConnectionFailed, match="while reading"), transport.within(100):
        transport.call("GET", "thing")


def test_promise_limits_every_call_within_it(
    server: ScriptedServer, transport: Transport, fake_time: FakeTime
) -> None:
    server.on("GET", "thing", Reply(503, b"down"))
    began_at = fake_time.now_s

    with transport.within(10):
        with pytest.raises(ServerFailed), transport.within(500):
            transport.call("GET", "thing")
        assert fake_time.now_s - began_at <= 10
        with pytest.raises(ServerFailed):
            transport.call("GET", "thing", timeout_s=100)

    assert fake_time.now_s - began_at <= 11
    assert transport.promised_s() is None


def test_answer_to_a_wait_is_read_to_its_end_and_the_next_call_keeps_the_promise(
    server: ScriptedServer, transport: Transport, fake_time: FakeTime
) -> None:
    def late(seen: Seen) -> Reply:
        fake_time.now_s += 7
        return OK

    server.on("GET", "news", late)
    server.on("GET", "thing", Reply(503, b"down"))

    with transport.within(5):
        assert transport.call("GET", "news", wait_s=5).json() == {"ok": True}
        with pytest.raises(ConnectionFailed, match="in 1 attempt"):
            transport.call("GET", "thing")

    assert server.calls("GET", "news")[0].query == {"wait": "5"}
    assert len(server.calls("GET", "thing")) == 1


class SlowBody(BytesBody):
    """A body whose sending takes a time that only the fake clock knows."""

    def __init__(self, fake_time: FakeTime, takes_s: float) -> None:
        super().__init__(bytes(8), "application/x-weights")
        self._fake_time = fake_time
        self._takes_s = takes_s

    def pieces(self, start: int = 0) -> Iterator[bytes | memoryview]:
        yield from super().pieces(start)
        self._fake_time.now_s += self._takes_s


def test_answer_to_a_long_body_has_only_the_time_that_is_left(
    server: ScriptedServer, fake_time: FakeTime
) -> None:
    http = Recording()
    server.on("POST", "thing", OK)
    transport = make(server.url, fake_time, http=http)

    with transport.within(40):
        transport.call("POST", "thing", body=SlowBody(fake_time, 36))
    transport.call("POST", "thing", body=SlowBody(fake_time, 25), timeout_s=35)
    transport.call("POST", "thing", body=SlowBody(fake_time, 1))

    assert [round(timeouts["read"]) for timeouts in http.last_timeouts] == [4, 10, 30]


def test_untrusted_certificate_is_not_retried(fake_time: FakeTime) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        cause = ssl.SSLCertVerificationError(1, "self-signed certificate")
        cause.verify_message = "self-signed certificate"
        raise httpx.ConnectError("failed") from cause

    with pytest.raises(
        ConnectionFailed, match="self-signed certificate; for a private authority set SSL_CERT_FILE"
    ):
        make("https://example.org", fake_time, http=httpx.MockTransport(refuse)).call("GET", "thing")

    assert fake_time.sleeps == []


def test_redirect_is_not_followed(server: ScriptedServer, transport: Transport) -> None:
    server.on("GET", "thing", Reply(301, headers={"Location": "https://elsewhere.example/"}))

    with pytest.raises(UnexpectedAnswer, match=r"redirects to https://elsewhere\.example/"):
        transport.call("GET", "thing", headers={"CLIENT-UUID": "secret"})


def test_answer_that_is_not_json_is_unexpected(server: ScriptedServer, transport: Transport) -> None:
    server.on("GET", "thing", Reply(200, b"<html>", {"Content-Type": "text/html"}))

    with pytest.raises(UnexpectedAnswer, match="answered 200 with text/html"):
        transport.call("GET", "thing").json()


def test_nan_never_leaves_as_json(server: ScriptedServer, transport: Transport) -> None:
    with pytest.raises(ValueError, match="JSON"):
        transport.call("POST", "thing", json_body={"loss": float("nan")})

    assert server.seen == []


def test_logs_tell_of_retries_and_never_of_credentials(
    server: ScriptedServer, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.on("POST", "thing", Reply(503), DROP, OK)

    transport.call("POST", "thing", headers={"CLIENT-UUID": "s3cr3t"}, body=b"w3ights", idempotency_key="k3y")

    assert "call_retried method=POST path=thing attempt=1" in caplog.text
    assert not any(secret in caplog.text for secret in ("s3cr3t", "w3ights", "k3y"))


def test_clear_text_to_another_machine_is_warned_of(
    fake_time: FakeTime, caplog: pytest.LogCaptureFixture
) -> None:
    make("http://fma.example.org", fake_time)
    assert "clear_text host=fma.example.org" in caplog.text

    caplog.clear()
    make("https://fma.example.org", fake_time)
    for host in (
        "[::1]:8000",
        "localhost",
        "LOCALHOST.",
        "fma.localhost",
        "127.0.0.1",
        "127.1.2.3",
        "0.0.0.0",
    ):
        make(f"http://{host}", fake_time)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:8000", "http://localhost:8000/"),
        ("https://example.org/fma", "https://example.org/fma/"),
        ("https://example.org/fma//", "https://example.org/fma/"),
    ],
)
def test_address_ends_with_one_slash(url: str, expected: str) -> None:
    assert base_url(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "ftp://example.org/",
        "https://",
        "https://example.org/?a=1",
        "http://example.org:port",
        "/fma",
    ],
)
def test_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        base_url(url)


def test_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="must not carry") as caught:
        base_url("https://user:hunter2@example.org/")

    assert "hunter2" not in str(caught.value)


def test_time_limit_must_be_positive(fake_time: FakeTime) -> None:
    with pytest.raises(ValueError, match="timeout_s must be positive"):
        make("https://example.org", fake_time, timeout_s=0)
