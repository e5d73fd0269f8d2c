"""Requests that wait: what wakes them, what they hold, and how they end."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse

from fma_api.front import waiting_room
from fma_api.front.responses import NothingYet
from fma_api.front.waiting_room import PER_CLIENT
from tests.front.granian import Handler, Running, running

TOPIC = "model:7"


class News:
    """A view that has nothing to say until there are news."""

    def __init__(self, seconds: float = 30.0) -> None:
        self.said = ""
        self.seconds = seconds
        self.times_asked = 0
        self.meanwhile: Callable[[], Any] = lambda: None

    def __call__(self, request: HttpRequest) -> HttpResponse:
        said, meanwhile, self.meanwhile = self.said, self.meanwhile, lambda: None
        self.times_asked += 1
        meanwhile()
        if said:
            return HttpResponse(said + request.read().decode())
        return NothingYet(topics=[TOPIC], seconds=self.seconds, status=204)


@pytest.fixture
def news() -> News:
    return News()


@pytest.fixture
def front(news: News) -> Iterator[Running]:
    with running(Handler(news)) as started:
        yield started


def wake(front: Running, topic: str = TOPIC) -> None:
    front.in_loop(lambda: front.front.room.wake({topic}))


def until_waiting(front: Running, count: int = 1) -> None:
    front.until(lambda: front.front.room.count == count)


def test_who_waits_is_asked_for_again_when_something_is_heard(front: Running, news: News) -> None:
    waiter = front.begin(b"body", method="POST")
    until_waiting(front)
    news.said = "round 2: "

    wake(front)

    assert (waiter.wait().status, waiter.body) == (200, b"round 2: body")


def test_what_is_heard_of_another_model_wakes_nobody(front: Running, news: News) -> None:
    waiter = front.begin()
    until_waiting(front)

    wake(front, "model:8")

    assert (waiter.is_answered, news.times_asked) == (False, 1)


def test_a_wake_up_for_nothing_is_waited_through(front: Running, news: News) -> None:
    waiter = front.begin()
    until_waiting(front)

    wake(front)
    front.until(lambda: news.times_asked == 2)
    until_waiting(front)

    assert not waiter.is_answered


def test_what_is_heard_while_the_view_looks_is_not_missed(front: Running, news: News) -> None:
    def change() -> None:
        news.said = "new"
        wake(front)

    news.meanwhile = change

    assert front.begin().wait().body == b"new"


def test_when_the_time_is_over_the_answer_is_what_there_is_then() -> None:
    news = News(seconds=0.05)
    with running(Handler(news)) as front:
        assert front.begin().wait().status == 204
        assert news.times_asked == 2  # a wake-up may have been lost


def test_any_number_waits_without_a_thread(news: News) -> None:
    with running(Handler(news), threads=2, waiters=400) as front:
        waiters = [front.begin() for _ in range(300)]
        until_waiting(front, 300)
        assert front.front.num_threads <= 2
        news.said = "new"
        wake(front, "*")
        assert {waiter.wait().body for waiter in waiters} == {b"new"}


def test_who_finds_no_place_is_answered_at_once(news: News) -> None:
    with running(Handler(news), waiters=1) as front:
        front.begin()
        until_waiting(front)

        assert front.begin().wait().status == 204


@pytest.mark.parametrize("header", ["client-uuid", "authorization"])
def test_one_client_does_not_take_the_places_of_others(news: News, header: str) -> None:
    with running(Handler(news), waiters=100) as front:
        for _ in range(PER_CLIENT):
            front.begin(headers=[(header, "one")])
        until_waiting(front, PER_CLIENT)

        assert front.begin(headers=[(header, "one")]).wait().status == 204
        front.begin(headers=[(header, "another")])
        until_waiting(front, PER_CLIENT + 1)


ONE: dict[str, Any] = {"headers": [("client-uuid", "one")], "query": "after=0&wait=30"}


@pytest.fixture
def full(news: News) -> Iterator[Running]:
    """A front where one client has all of its places."""
    with running(Handler(news), waiters=100) as front:
        for _ in range(PER_CLIENT):
            front.begin(**ONE)
        until_waiting(front, PER_CLIENT)
        yield front


def looks_every(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_room, "LOOK_S", {"client": seconds, "address": seconds})


def test_who_has_all_places_looks_now_and_then(
    full: Running, news: News, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks_every(0.3, monkeypatch)
    first, second = full.begin(**ONE), full.begin(**ONE)
    assert first.wait().status == 204
    assert (second.is_answered, news.times_asked) == (False, PER_CLIENT + 1)

    assert second.wait().status == 204
    assert news.times_asked == PER_CLIENT + 2


SPELLINGS = ["wait=1e1", "wait=+5", "wait=%35", "%77ai%74=5", "wait=x&after=0&wait=5", "wait=1_0"]


@pytest.mark.parametrize(
    "query", ["after=0&wait=30", "wait=5", "wait=0.5&after=1", "wait=999999", *SPELLINGS]
)
def test_who_would_look_after_its_time_is_refused_without_django(
    full: Running, news: News, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    looks_every(3600.0, monkeypatch)
    assert full.begin(**ONE).wait().status == 204

    refused = full.begin(**{**ONE, "query": query}).wait()

    assert (refused.status, json.loads(refused.body)["code"]) == (429, "too_many_waits")
    assert refused.headers["retry-after"] == "10"
    assert news.times_asked == PER_CLIENT + 1


@pytest.mark.parametrize(
    "asked",
    [
        {"headers": [("client-uuid", "another")], "query": "wait=30"},
        {"headers": [("client-uuid", "one")], "query": "after=0"},
        {"headers": [("client-uuid", "one")], "query": "wait=x"},
        {"headers": [("client-uuid", "one")], "query": "await=30"},
        {"headers": [("client-uuid", "one")], "query": "wait=5&wait=x"},
        {"headers": [("client-uuid", "one")], "query": "wait=nan"},
        {"headers": [("client-uuid", "one")], "query": "wait=-1"},
        {"headers": [("client-uuid", "one")]},
    ],
    ids=str,
)
def test_others_and_who_does_not_wait_look_at_once(
    full: Running, news: News, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    looks_every(3600.0, monkeypatch)
    assert full.begin(**ONE).wait().status == 204

    full.begin(**asked)

    full.until(lambda: news.times_asked == PER_CLIENT + 2)


def test_an_address_with_all_places_looks_now_and_then(news: News, monkeypatch: pytest.MonkeyPatch) -> None:
    looks_every(3600.0, monkeypatch)
    with running(Handler(news), waiters=4) as front:
        for number in range(3):
            front.begin(headers=[("client-uuid", str(number))], query="wait=30")
        until_waiting(front, 3)

        assert front.begin(headers=[("client-uuid", "4")], query="wait=30").wait().status == 204
        assert front.begin(headers=[("client-uuid", "5")], query="wait=30").wait().status == 429
        front.begin(headers=[("client-uuid", "5")], query="wait=30", client="127.0.0.3:1")
        until_waiting(front, 4)


def test_who_has_places_again_looks_at_once(
    full: Running, news: News, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks_every(3600.0, monkeypatch)
    assert full.begin(**ONE).wait().status == 204
    news.said = "new"
    wake(full)
    full.until(lambda: news.times_asked == 2 * PER_CLIENT + 1)
    until_waiting(full, 0)
    news.said = ""
    asked_before = news.times_asked

    full.begin(**ONE)

    until_waiting(full, 1)
    assert news.times_asked == asked_before + 1


def test_who_hangs_up_before_its_turn_asks_nothing(
    full: Running, news: News, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks_every(20.0, monkeypatch)
    assert full.begin(**ONE).wait().status == 204
    second = full.begin(**ONE)
    full.until(lambda: second.num_watchers == 1)

    second.hang_up()

    full.until(lambda: second.num_watchers == 0)
    assert (second.is_answered, news.times_asked) == (False, PER_CLIENT + 1)


def test_a_server_that_stops_lets_all_look_who_wait_for_their_turn(
    full: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks_every(20.0, monkeypatch)
    assert full.begin(**ONE).wait().status == 204
    second = full.begin(**ONE)
    full.until(lambda: second.num_watchers == 1)

    full.in_loop(full.front.room.close)

    assert second.wait().status == 204


def test_many_who_come_at_once_do_not_share_a_place(news: News) -> None:
    with running(Handler(news), threads=1, waiters=2) as front:
        all_have_come = threading.Event()
        news.meanwhile = lambda: all_have_come.wait(5)
        waiters = [front.begin() for _ in range(5)]
        front.in_loop(all_have_come.set)

        front.until(lambda: sum(waiter.is_answered for waiter in waiters) == 3)
        assert front.in_loop(lambda: front.front.room.count) == 2


def test_who_hangs_up_leaves_the_place(front: Running) -> None:
    waiter = front.begin()
    until_waiting(front)

    waiter.hang_up()

    until_waiting(front, 0)
    front.until(lambda: waiter.num_watchers == 0)


def test_nothing_of_a_wait_is_left_behind(front: Running, news: News) -> None:
    waiter = front.begin()
    until_waiting(front)
    news.said = "new"
    wake(front)

    waiter.wait()

    front.until(lambda: (front.front.room.count, waiter.num_watchers) == (0, 0))


def test_a_server_that_stops_answers_who_waits_and_who_comes(front: Running) -> None:
    waiter = front.begin()
    until_waiting(front)

    front.in_loop(front.front.room.close)

    assert waiter.wait().status == 204
    assert front.begin().wait().status == 204


def test_a_large_body_cannot_be_asked_for_again_so_nobody_waits_with_one(front: Running) -> None:
    assert front.begin(bytes(100_000), method="POST").wait().status == 204
