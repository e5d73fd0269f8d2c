"""The threads of the front: as many as are busy at one time, and none is ever lost."""

import threading
import time
from collections.abc import Callable

import pytest

from fma_api.front import threads as front_threads
from fma_api.front.threads import AT_ONCE, Threads


def run_all(threads: Threads, *, num: int) -> None:
    left = threading.Semaphore(0)
    for _ in range(num):
        threads.run(left.release)
    for _ in range(num):
        assert left.acquire(timeout=10)


def test_a_quiet_server_has_few() -> None:
    threads = Threads(32)
    for _ in range(300):
        run_all(threads, num=3)
        time.sleep(0.001)

    assert threads.count <= 6


def test_all_that_are_allowed_work_at_once_and_no_more() -> None:
    threads, all_here = Threads(4), threading.Barrier(5)
    for _ in range(4):
        threads.run(lambda: all_here.wait(10) and None)  # type: ignore[arg-type]
    all_here.wait(10)
    run_all(threads, num=50)

    assert threads.count == 4


def test_work_that_breaks_takes_no_thread_with_it() -> None:
    def breaks() -> None:
        raise AttributeError("response_bytes")

    threads = Threads(2)
    for _ in range(10):
        threads.run(breaks)

    run_all(threads, num=10)


def test_senders_take_turns_and_each_is_served_in_its_order() -> None:
    threads, go, done = Threads(1), threading.Event(), threading.Semaphore(0)
    served: list[str] = []

    def work(name: str) -> Callable[[], None]:
        def serve() -> None:
            served.append(name)
            done.release()

        return serve

    threads.run(lambda: go.wait(10) and None)  # type: ignore[arg-type]
    for number in range(1000):
        threads.run(work(f"flood {number}"), sender="10.0.0.2")
    for sender in ("10.0.0.3", "10.0.0.4"):
        for number in range(2):
            threads.run(work(f"{sender} {number}"), sender=sender)
    go.set()
    for _ in range(1004):
        assert done.acquire(timeout=10)

    assert served[:7] == [
        *("flood 0", "10.0.0.3 0", "10.0.0.4 0"),
        *("flood 1", "10.0.0.3 1", "10.0.0.4 1"),
        "flood 2",
    ]
    assert served[7:] == [f"flood {number}" for number in range(3, 1000)]


def run_one(threads: Threads, *, sender: str) -> None:
    done = threading.Event()
    threads.run(done.set, sender=sender)
    assert done.wait(10)


class Counted:
    """Work that counts how much of it runs at one time."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._lock, self._running = seconds, threading.Lock(), 0
        self.most, self.done = 0, threading.Semaphore(0)

    def __call__(self) -> None:
        with self._lock:
            self._running += 1
            self.most = max(self.most, self._running)
        time.sleep(self._seconds)
        with self._lock:
            self._running -= 1
        self.done.release()


def test_a_flood_runs_in_few_threads_while_others_send_and_holds_none_of_them_up() -> None:
    threads, work = Threads(16), Counted(0.01)

    run_one(threads, sender="10.0.0.3")
    for _ in range(100):
        threads.run(work, sender="10.0.0.2")
    run_one(threads, sender="10.0.0.3")
    for _ in range(100):
        assert work.done.acquire(timeout=10)

    assert work.most == AT_ONCE


def test_work_that_takes_long_holds_up_no_other_of_its_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_threads, "LONG_S", 0.05)
    threads, go = Threads(16), threading.Event()
    run_one(threads, sender="10.0.0.3")
    for _ in range(3 * AT_ONCE):
        threads.run(lambda: go.wait(10) and None, sender="10.0.0.2")  # type: ignore[arg-type]
    try:
        run_one(threads, sender="10.0.0.2")
    finally:
        go.set()


def test_a_sender_that_had_its_share_waits_while_others_send(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_threads, "SHARED_S", 0.5)
    monkeypatch.setattr(front_threads, "BESIDE_S", 1000.0)
    threads, served = Threads(4), threading.Semaphore(0)
    run_one(threads, sender="10.0.0.3")
    run_one(threads, sender="10.0.0.2")

    threads.run(served.release, sender="10.0.0.2")
    for number in range(20):
        run_one(threads, sender=f"10.0.1.{number}")

    assert not served.acquire(blocking=False)
    assert served.acquire(timeout=10), "nobody else sends any more"


def test_a_queue_that_is_older_than_its_senders_last_request_counts_as_a_sender(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(front_threads, "SHARED_S", 0.1)
    threads, work = Threads(16), Counted(0.02)

    run_one(threads, sender="10.0.0.3")
    for _ in range(60):  # they take six times SHARED_S
        threads.run(work, sender="10.0.0.2")
    for _ in range(60):
        run_one(threads, sender="10.0.0.3")
        assert work.done.acquire(timeout=10)

    assert work.most == AT_ONCE


def test_what_a_sender_took_alone_is_not_held_against_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_threads, "BESIDE_S", 1000.0)
    threads = Threads(4)
    for _ in range(20):
        run_one(threads, sender="10.0.0.2")
    run_one(threads, sender="10.0.0.3")

    run_one(threads, sender="10.0.0.2")


def test_senders_that_are_even_again_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_threads, "BESIDE_S", 1e-6)
    threads = Threads(4)
    for number in range(1000):
        run_one(threads, sender=f"10.0.{number // 250}.{number % 250}")
    time.sleep(0.01)
    run_one(threads, sender="10.0.0.0")

    assert len(threads._ahead_until) < 500


def test_whoever_is_alone_again_has_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_threads, "SHARED_S", 0.1)
    threads, all_here = Threads(8), threading.Barrier(9)
    run_one(threads, sender="10.0.0.3")
    run_one(threads, sender="10.0.0.2")
    time.sleep(0.11)
    for _ in range(8):
        threads.run(lambda: all_here.wait(10) and None, sender="10.0.0.2")  # type: ignore[arg-type]

    all_here.wait(10)
