import random
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pytest

from fma_connect.exceptions import ConnectionFailed, refusal
from fma_connect.retry import RetryPolicy
from fma_connect.transport import Transport
from fma_connect.watching import Round, finished_rounds
from tests.connect.conftest import FakeTime


def make_transport(fake_time: FakeTime) -> Transport:
    injected: dict[str, Any] = {**fake_time.injected, "rng": random.Random(3)}
    return Transport("http://localhost", timeout_s=60, retry=RetryPolicy(), **injected)


class Model:
    """Rounds that end at given moments; `holds_back` is whether the server waits with its answers."""

    def __init__(
        self, fake_time: FakeTime, ends: dict[int, tuple[float, str]], *, holds_back: bool = True
    ) -> None:
        self.fake_time = fake_time
        self.began_at = fake_time.now_s
        self.ends = ends
        self.holds_back = holds_back
        self.away: list[tuple[float, float]] = []
        self.looks = 0
        self.rows = 0

    def watch(self, **options: Any) -> Iterator[Round]:
        options = {"after_round": None, "timeout_s": 100, **options}
        transport = make_transport(self.fake_time)
        return finished_rounds(self.newest_first, self.await_aggregate, **options, transport=transport)

    def newest_first(self) -> Iterable[Round]:
        self._fail_if_away()
        self.looks += 1
        now_s = self.fake_time.now_s - self.began_at
        for number in sorted(self.ends, reverse=True):
            ends_at, state = self.ends[number]
            over = ends_at <= now_s
            self.rows += 1
            yield {
                "number": number,
                "state": state if over else "collecting",
                "aggregate": number * 10 if over and state == "published" else None,
            }

    def await_aggregate(self, after: int, wait_s: float) -> None:
        self._fail_if_away()
        if not self.holds_back:
            return
        now_s = self.fake_time.now_s - self.began_at
        publishing = [at for n, (at, state) in self.ends.items() if state == "published" and n * 10 > after]
        self.fake_time.now_s += max(0.0, min([wait_s, *(at - now_s for at in publishing)]))

    def _fail_if_away(self) -> None:
        now_s = self.fake_time.now_s - self.began_at
        if any(start <= now_s < end for start, end in self.away):
            self.fake_time.now_s += 5
            raise ConnectionFailed("away")


@pytest.mark.parametrize("holds_back", [True, False])
def test_rounds_come_once_each_in_order_as_they_end(fake_time: FakeTime, holds_back: bool) -> None:
    ends = {1: (-9.0, "published"), 2: (12.0, "published"), 3: (20.0, "failed"), 4: (55.0, "published")}
    ends[5] = (1e9, "published")
    model = Model(fake_time, ends, holds_back=holds_back)

    came = [(r["number"], r["state"], fake_time.now_s - model.began_at) for r in model.watch()]

    assert [(number, state) for number, state, _ in came] == [
        (2, "published"),
        (3, "failed"),
        (4, "published"),
    ]
    assert all(0 <= at - ends[number][0] <= 12 for number, _, at in came)
    assert model.looks < 40


def test_long_poll_brings_a_published_round_at_once(fake_time: FakeTime) -> None:
    model = Model(fake_time, {1: (3.5, "published")})

    next(model.watch())

    assert fake_time.now_s - model.began_at < 4.5


def test_watch_can_begin_with_what_is_over(fake_time: FakeTime) -> None:
    model = Model(fake_time, dict.fromkeys(range(1, 60), (-1.0, "published")))

    assert [r["number"] for r in model.watch(after_round=0, timeout_s=1)] == list(range(1, 60))
    assert [r["number"] for r in model.watch(after_round=57, timeout_s=1)] == [58, 59]
    assert list(model.watch(timeout_s=1)) == []


def test_watch_reads_no_old_rounds_again(fake_time: FakeTime) -> None:
    ends = dict.fromkeys(range(1, 500), (-1.0, "published")) | {500: (1e9, "published")}
    model = Model(fake_time, ends)

    list(model.watch(timeout_s=100))

    assert model.rows < 60 + 25 * model.looks
    # Once the floor has risen, a look reads the open round and one finished row.
    assert model.rows / model.looks < 25


def test_older_round_that_ends_later_is_not_missed(fake_time: FakeTime) -> None:
    model = Model(fake_time, {1: (30.0, "published"), 2: (5.0, "cancelled"), 3: (50.0, "published")})

    assert [r["number"] for r in model.watch()] == [2, 1, 3]


def test_model_without_rounds_is_waited_for(fake_time: FakeTime) -> None:
    model = Model(fake_time, {})

    assert list(model.watch(timeout_s=50)) == []
    assert fake_time.now_s - model.began_at == pytest.approx(50, abs=1)


def test_watch_without_end_goes_on(fake_time: FakeTime) -> None:
    model = Model(fake_time, {n: (n * 100.0, "published") for n in range(1, 20)})

    assert [r["number"] for r in islice(model.watch(timeout_s=None), 15)] == list(range(1, 16))


def test_server_that_comes_back_is_waited_for(fake_time: FakeTime) -> None:
    model = Model(fake_time, {1: (30.0, "published")})
    model.away = [(5.0, 60.0)]

    assert [r["number"] for r in model.watch()] == [1]


def test_server_that_was_never_there_is_told(fake_time: FakeTime) -> None:
    model = Model(fake_time, {})
    model.away = [(0.0, 1e9)]

    with pytest.raises(ConnectionFailed):
        next(model.watch(timeout_s=None))


def test_server_that_stays_away_is_told_in_the_end(fake_time: FakeTime) -> None:
    model = Model(fake_time, {1: (1e9, "published")})
    model.away = [(5.0, 1e9)]

    with pytest.raises(ConnectionFailed):
        list(model.watch())


def test_lasting_refusal_ends_the_watch(fake_time: FakeTime) -> None:
    def refuse() -> Iterable[Round]:
        raise refusal(404, {"code": "not_found"})

    watch = finished_rounds(
        refuse,
        lambda after, wait_s: None,
        after_round=0,
        timeout_s=None,
        transport=make_transport(fake_time),
    )

    with pytest.raises(Exception, match="404 not_found"):
        next(watch)
