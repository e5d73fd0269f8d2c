"""The environment that Django gets of a request, and the way of its answer."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.signals import request_finished, request_started
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

from fma_api.front import pipe
from fma_api.front.environ import environ_of
from fma_api.front.responses import StoredFile
from tests.front.granian import Handler, Headers, Scope, running


def test_the_head_of_a_request() -> None:
    said = Headers(
        [("host", "localhost:8000"), ("content-type", "a/b"), ("content-length", "3"), ("x-y", "z")]
    )
    scope = Scope("POST", "/a b/é", "q=%20&r=\ufeffé", said, server="[::1]:8000", client="[::2]:999")

    environ = environ_of(scope)

    assert environ["PATH_INFO"].encode("latin-1").decode() == "/a b/é"
    assert environ["QUERY_STRING"].encode("latin-1").decode() == "q=%20&r=\ufeffé"
    assert {
        "REQUEST_METHOD": "POST",
        "SERVER_NAME": "::1",
        "SERVER_PORT": "8000",
        "REMOTE_ADDR": "::2",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost:8000",
        "CONTENT_TYPE": "a/b",
        "CONTENT_LENGTH": "3",
        "HTTP_X_Y": "z",
    }.items() <= environ.items()
    assert "HTTP_CONTENT_LENGTH" not in environ


def test_headers_that_come_twice_are_joined() -> None:
    said = Headers([("accept", "a"), ("cookie", "a=1"), ("accept", "b"), ("cookie", "b=2")])

    environ = environ_of(Scope(headers=said))

    assert (environ["HTTP_ACCEPT"], environ["HTTP_COOKIE"]) == ("a,b", "a=1; b=2")


def test_a_header_cannot_pass_for_another_one() -> None:
    environ = environ_of(
        Scope(headers=Headers([("x-forwarded-for", "proxy"), ("x_forwarded_for", "forged")]))
    )

    assert environ["HTTP_X_FORWARDED_FOR"] == "proxy"


LARGE = bytes(range(256)) * 1024


def with_cookies(request: HttpRequest) -> HttpResponse:
    response = HttpResponse("text", headers={"X-Y": "z"})
    response.set_cookie("a", "1")
    return response


def in_pieces(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(iter([LARGE, b"", b"b"]))


def broken(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("outside of Django's own handling")


def test_headers_and_cookies_are_sent() -> None:
    with running(Handler(with_cookies)) as front:
        answer = front.begin().wait()

        assert (answer.status, answer.body, answer.headers["x-y"]) == (200, b"text", "z")
        assert answer.headers["set-cookie"] == "a=1; Path=/"


def test_head_has_no_body() -> None:
    with running(Handler(with_cookies)) as front:
        answer = front.begin(method="HEAD").wait()

        assert (answer.status, answer.body, answer.headers["x-y"]) == (200, b"", "z")


def test_a_short_stream_goes_out_as_one_piece() -> None:
    with running(Handler(lambda request: StreamingHttpResponse(iter([b"a", b"", b"b"])))) as front:
        answer = front.begin().wait()

        assert (answer.body, answer.file) == (b"ab", ())


def test_a_stream_that_breaks_before_anything_was_sent_is_no_success() -> None:
    def broken_stream() -> Iterator[bytes]:
        yield b"a"
        raise RuntimeError("the store is gone")

    with running(Handler(lambda request: StreamingHttpResponse(broken_stream()))) as front:
        assert front.begin().wait().status == 500


def test_a_long_stream_goes_through_a_pipe_that_is_gone_afterwards() -> None:
    with running(Handler(in_pieces)) as front:
        answer = front.begin().wait()

        assert (answer.status, answer.body) == (200, LARGE + b"b")
        assert not Path(answer.file[0]).exists()


@pytest.mark.parametrize(("part", "sent"), [(None, b"0123456789"), ((2, 5), b"234")])
def test_a_file_is_left_to_granian(tmp_path: Path, part: Any, sent: bytes) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"0123456789")

    def view(request: HttpRequest) -> StreamingHttpResponse:
        return StoredFile(iter([b"not this way"]), path=str(path), part=part)

    with running(Handler(view)) as front:
        answer = front.begin().wait()

        assert (answer.body, answer.file) == (sent, (str(path), *(part or ())))


def test_a_client_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "SILENCE_S", 0.05)
    opened = []

    def open_and_stall(path: Path) -> None:
        opened.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK))

    pipe.pour(iter([bytes(4 * pipe.PIPE_BYTES)]), open_and_stall)

    os.close(*opened)


def test_a_client_that_has_gone_is_not_written_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "OPENED_WITHIN_S", 0.05)
    unread = iter([b"a"])

    pipe.pour(unread, lambda path: None)

    assert list(unread) == [b"a"]


def test_what_breaks_outside_of_django_is_a_problem() -> None:
    with running(Handler(broken)) as front:
        answer = front.begin().wait()

        assert (answer.status, answer.headers["content-type"]) == (500, "application/problem+json")
        assert b"internal_error" in answer.body


@pytest.fixture
def signals() -> Iterator[list[str]]:
    heard: list[str] = []

    def started(**_: Any) -> None:
        heard.append("started")

    def finished(**_: Any) -> None:
        heard.append("finished")

    request_started.connect(started)
    request_finished.connect(finished)
    yield heard
    request_started.disconnect(started)
    request_finished.disconnect(finished)


def test_django_hears_of_the_end_of_each_request(signals: list[str]) -> None:
    with running(Handler(with_cookies), threads=1) as front:
        for _ in range(2):
            front.begin().wait()
        front.begin().wait()

        assert signals[:4] == ["started", "finished", "started", "finished"]


@pytest.mark.parametrize(
    "flooding", ["192.0.2.1:{port}", "[2001:db8::{port:x}]:1"], ids=["IPv4", "a network of IPv6"]
)
def test_a_flood_of_one_sender_waits_for_itself(flooding: str) -> None:
    """One thread, held until all have come; the other sender is the last to come, and the second to be answered."""
    go, order = threading.Event(), []

    def note(request: HttpRequest) -> HttpResponse:
        go.wait(10)
        order.append(request.META["REMOTE_ADDR"])
        return HttpResponse()

    with running(Handler(note), threads=1) as front:
        flood = [front.begin(client=flooding.format(port=5000 + number)) for number in range(50)]
        other = front.begin(client="198.51.100.7:1")
        front.until(lambda: len(front.front._threads._waiting) == 2)
        go.set()
        for asked in (*flood, other):
            asked.wait()

    assert order.index("198.51.100.7") <= 2
