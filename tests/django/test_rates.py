"""Rates: no more in a time than is allowed, as much at once as in one period, and when to come again."""

import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from fma_django.errors import RateExceeded
from fma_django.rates import in_redis, of_this_process
from fma_django.rates.cost import Cost
from fma_django.rates.in_process import InProcess
from fma_django.updates.rates import count_update
from tests.servers.redis import private_redis

Take = Callable[[list[Cost]], float]
ANN = UUID("0d3e1c4c-9c39-4d6f-8e9b-3ae8d2a7a3fd")


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    of_this_process.forget()
    yield
    of_this_process.forget()


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with private_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(params=["process", "redis"])
def take(request: pytest.FixtureRequest) -> Take:
    if request.param == "process":
        buckets = InProcess()
        return lambda costs: buckets.take(costs)[0]
    url = request.getfixturevalue("redis_url")
    return lambda costs: in_redis.take(url, costs)[0]


def cost(number: float, key: str = "k", *, amount: float = 10.0, period_s: float = 1000.0) -> Cost:
    return Cost(key, number * period_s / amount, period_s)


@given(
    arrivals=st.lists(st.tuples(st.floats(0, 300), st.integers(1, 8)), max_size=60),
    since=st.integers(0, 59),
)
def test_in_any_time_no_more_is_taken_than_a_burst_and_what_came_back(
    arrivals: list[tuple[float, int]], since: int
) -> None:
    now = [0.0]
    buckets = InProcess(lambda: now[0])
    taken = []
    for pause_s, number in arrivals:
        now[0] += pause_s
        if buckets.take([cost(number)])[0] == 0:
            taken.append((now[0], number))
    window = taken[since:]
    if window:
        seconds = window[-1][0] - window[0][0]
        assert sum(number for _, number in window) <= 10 + 10 * seconds / 1000 + 1e-6


def test_who_comes_when_it_was_told_to_is_let_in() -> None:
    now = [0.0]
    buckets = InProcess(lambda: now[0])
    assert buckets.take([cost(10)])[0] == 0
    wait_s, key = buckets.take([cost(3)])
    assert key == "k"
    assert wait_s == pytest.approx(300)
    now[0] += wait_s - 0.01
    assert buckets.take([cost(3)])[0] > 0
    now[0] += 0.02
    assert buckets.take([cost(3)])[0] == 0


def test_all_is_taken_or_nothing(take: Take) -> None:
    mine, ours = uuid4().hex, uuid4().hex
    assert take([cost(6, ours)]) == 0
    assert take([cost(1, mine), cost(6, ours)]) == pytest.approx(200, abs=2)
    assert take([cost(10, mine)]) == 0


def test_more_than_all_is_taken_of_all_and_owed(take: Take) -> None:
    key = uuid4().hex
    assert take([cost(25, key)]) == 0
    assert take([cost(1, key)]) == pytest.approx(1600, abs=2)


def test_what_is_only_asked_takes_nothing_and_what_came_is_owed(take: Take) -> None:
    key = uuid4().hex
    assert [take([cost(10, key).only_asked()]) for _ in range(2)] == [0, 0]
    assert take([cost(4, key).in_any_case()]) == 0
    assert take([cost(7, key).only_asked()]) == pytest.approx(100, abs=2)
    assert take([cost(16, key).in_any_case()]) == 0
    assert take([cost(1, key)]) == pytest.approx(1100, abs=2)


def test_threads_take_no_more_than_there_is(take: Take) -> None:
    key = uuid4().hex
    taken: list[int] = []

    def work() -> None:
        taken.extend(1 for _ in range(10) if take([cost(1, key)]) == 0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(taken) == 10


def test_without_a_rate_nothing_is_counted(settings: Settings) -> None:
    for _ in range(3):
        count_update(1, ANN, 10**12)


def test_processes_count_together_in_redis_and_alone_while_it_is_away(
    settings: Settings, redis_url: str
) -> None:
    settings.FMA_CLIENT_UPDATE_RATE = (1, 600)
    settings.FMA_BROKER_URL = redis_url
    client = uuid4()
    count_update(1, client, 1)
    of_this_process.forget()  # another process
    with pytest.raises(RateExceeded) as caught:
        count_update(1, client, 1)
    assert 0 < caught.value.facts["retry_after_s"] <= 600
    assert "FMA_CLIENT_UPDATE_RATE" in caught.value.message

    settings.FMA_BROKER_URL = "redis://127.0.0.1:1/0"
    count_update(1, client, 1)
    with pytest.raises(RateExceeded):
        count_update(1, client, 1)


@pytest.mark.parametrize(
    ("setting", "rate"), [("FMA_CLIENT_BYTE_RATE", (100, 60)), ("FMA_MODEL_BYTE_RATE", (100, 60))]
)
def test_bytes_are_counted(settings: Settings, setting: str, rate: tuple[int, int]) -> None:
    setattr(settings, setting, rate)
    count_update(1, ANN, 60)
    with pytest.raises(RateExceeded, match=setting):
        count_update(1, ANN, 60)
    count_update(2, uuid4(), 60)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fma_django.rates.in_process.MOST_KEYS", 10)
    now = [0.0]
    buckets = InProcess(lambda: now[0])
    for number in range(100):
        buckets.take([cost(1, str(number), period_s=5.0)])
        now[0] += 1.0

    assert len(buckets._full_again_at) <= 11


def test_many_keys_in_use_are_looked_through_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    class Watched(dict[str, float]):
        def items(self) -> Any:
            looked.append(len(self))
            return super().items()

    monkeypatch.setattr("fma_django.rates.in_process.MOST_KEYS", 10)
    buckets = InProcess(lambda: 0.0)
    for number in range(1000):
        buckets._full_again_at = Watched(buckets._full_again_at)
        buckets.take([cost(1, str(number))])

    assert len(buckets._full_again_at) == 1000  # all are in use
    assert looked == [11, 23, 47, 95, 191, 383, 767]


def test_no_more_than_the_limit_pass_of_many_at_once(take: Take) -> None:
    start = threading.Barrier(40)
    passed: list[int] = []

    def ask() -> None:
        start.wait()
        passed.extend(1 for _ in range(5) if take([Cost("guess", 60 / 30, 60)]) <= 0)

    threads = [threading.Thread(target=ask) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 30 <= len(passed) <= 31  # one more is given back every two seconds


def test_what_is_given_back_can_be_taken_again(take: Take) -> None:
    cost = Cost("given back", 30.0, 60)
    assert take([cost]) <= 0
    assert take([cost]) <= 0
    assert take([cost]) > 0

    take([cost.given_back()])

    assert take([cost]) <= 0
    for _ in range(9):
        take([cost.given_back()])
    assert [take([cost]) <= 0 for _ in range(3)] == [True, True, False]
