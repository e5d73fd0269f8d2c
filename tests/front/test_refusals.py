"""Refusals that are repeated to whoever does not wait, without Django."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse

from fma_api.front import refusals
from fma_api.front.refusals import MOST, MOST_BYTES, Refusal, Refusals
from tests.front.granian import Exchange, Handler, Running, running

ASKED: dict[str, Any] = {"method": "POST", "path": "/register", "headers": [("client-uuid", "4711")]}


class Refusing:
    """A view with the same answer for all."""

    def __init__(self, make: Callable[[], HttpResponse]) -> None:
        self._make = make
        self.num_calls = 0

    def __call__(self, request: HttpRequest) -> HttpResponse:
        self.num_calls += 1
        return self._make()


def refused(status: int = 429, retry_after: str | None = "30", content: bytes = b"too many") -> HttpResponse:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return HttpResponse(content, status=status, headers=headers)


@pytest.fixture(autouse=True)
def long_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine may take a second between two requests."""
    monkeypatch.setattr(refusals, "REPEATED_S", 20.0)
    monkeypatch.setattr(refusals, "HELD_S", 0.0)


@pytest.fixture
def view() -> Refusing:
    return Refusing(refused)


@pytest.fixture
def front(view: Refusing) -> Iterator[Running]:
    with running(Handler(view)) as front:
        yield front


def refuse_once(front: Running, *pieces: bytes, **asked: Any) -> Exchange:
    """Ask, and return when the refusal is remembered."""
    answer = front.begin(*pieces, **asked).wait()
    front.until(lambda: bool(front.front._refusals._of_requests))
    return answer


@pytest.mark.parametrize("status", [429, 503])
def test_the_same_request_has_the_same_refusal_without_django(status: int) -> None:
    view = Refusing(lambda: refused(status))
    with running(Handler(view)) as front:
        first = refuse_once(front, b"body", **ASKED)
        second = front.begin(b"body", **ASKED).wait()

    assert view.num_calls == 1
    assert (second.status, second.headers, second.body) == (status, first.headers, b"too many")
    assert second.headers["retry-after"] == "30"


@pytest.mark.parametrize(
    "other",
    [
        {"method": "PUT"},
        {"path": "/register/"},
        {"query": "a=1"},
        {"headers": [("client-uuid", "4712")]},
        {"headers": []},
        {"headers": [("client-uuid", "4711"), ("cookie", "a=1")]},
        {"client": "127.0.0.3:50000"},
        {"pieces": [b"bodY"]},
        {"pieces": []},
    ],
    ids=str,
)
def test_django_answers_every_other_request(front: Running, view: Refusing, other: dict[str, Any]) -> None:
    refuse_once(front, b"body", **ASKED)
    asked = {**ASKED, **other}
    front.begin(*asked.pop("pieces", [b"body"]), **asked).wait()

    assert view.num_calls == 2


def test_a_repeated_refusal_is_held(front: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "HELD_S", 0.3)
    refuse_once(front, **ASKED)
    held = front.begin(**ASKED)
    front.until(lambda: front.front._refusals.num_held == 1)
    assert not held.is_answered

    assert held.wait().status == 429
    front.until(lambda: front.front._refusals.num_held == 0)


def test_no_more_are_held_than_there_is_memory_for(front: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "HELD_S", 3600.0)
    monkeypatch.setattr(refusals, "MOST_HELD", 2)
    refuse_once(front, **ASKED)
    asked = [front.begin(**ASKED) for _ in range(3)]

    assert asked[2].wait().status == 429
    assert [each.is_answered for each in asked] == [False, False, True]


def test_what_waited_for_a_thread_meanwhile_has_the_same_refusal() -> None:
    begun, may_end = threading.Event(), threading.Event()

    def make() -> HttpResponse:
        begun.set()
        assert may_end.wait(10)
        return refused()

    view = Refusing(make)
    with running(Handler(view), threads=1) as front:
        first = front.begin(**ASKED)
        assert begun.wait(10)
        others = [front.begin(**ASKED) for _ in range(5)]
        # The only thread is busy, so that nobody remembers the refusal before it is asked for these.
        front.until(lambda: front.front._threads._num_waiting == 5)
        may_end.set()

        assert {each.wait().status for each in (first, *others)} == {429}
    assert view.num_calls == 1


def test_django_is_asked_again_when_the_time_is_over(
    front: Running, view: Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "REPEATED_S", 0.2)
    refuse_once(front, **ASKED)
    front.until(lambda: not front.front._refusals._of_requests)
    front.begin(**ASKED).wait()

    assert view.num_calls == 2


def with_cookie() -> HttpResponse:
    response = refused()
    response.set_cookie("a", "1")
    return response


@pytest.mark.parametrize(
    ("make", "asked"),
    [
        (lambda: refused(status=403), {}),
        (lambda: refused(status=200), {}),
        (lambda: refused(retry_after=None), {}),
        (lambda: refused(retry_after="1"), {}),
        (lambda: refused(retry_after="Mon, 30 Nov 2026 21:00:00 GMT"), {}),
        (lambda: refused(content=bytes(MOST_BYTES + 1)), {}),
        (with_cookie, {}),
        (refused, {"method": "HEAD"}),
        (refused, {"path": "/readyz"}),
        (refused, {"path": "/prefix/healthz"}),
        (refused, {"pieces": [bytes(MOST_BYTES + 1)]}),
    ],
)
def test_no_other_answer_is_repeated(make: Callable[[], HttpResponse], asked: dict[str, Any]) -> None:
    view = Refusing(make)
    pieces = asked.get("pieces", [])
    said = {**ASKED, **{name: value for name, value in asked.items() if name != "pieces"}}
    with running(Handler(view), threads=1) as front:
        for _ in range(3):
            front.begin(*pieces, **said).wait()

    assert view.num_calls == 3


def test_only_so_many_are_remembered(front: Running) -> None:
    known, refusal = Refusals(), Refusal(429, [], b"")

    def remember_more() -> int:
        for number in range(MOST + 10):
            known.remember(front.loop, {"PATH_INFO": str(number)}, b"", refusal)
        return len(known._of_requests)

    assert front.in_loop(remember_more) == MOST
