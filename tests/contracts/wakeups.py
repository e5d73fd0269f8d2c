"""The contract of every carrier of wake-ups: subclass `WakeupsContract` and give a `harness`."""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from django.db import connection, transaction

from fma_django import wakeups
from fma_django.wakeups import ALL, TASKS, Listener, of_model

SOON_S = 5.0
A_MOMENT_S = 0.2


class Harness(ABC):
    """A carrier under test, chosen by the settings, and the means to go behind its back."""

    @abstractmethod
    def cut(self, listener: Listener) -> None:
        """Take away what the listener hears through, without a word to it."""

    @abstractmethod
    def break_saying(self) -> None:
        """Let nothing be said any more."""

    @abstractmethod
    def restore(self) -> None:
        """Put right what was broken."""


class WakeupsContract:
    @pytest.fixture
    def listener(self, harness: Harness) -> Iterator[Listener]:
        listener = wakeups.listen()
        yield listener
        listener.close()

    def test_what_is_said_is_heard(self, listener: Listener) -> None:
        wakeups.send(of_model(7))

        assert listener.wait(SOON_S) == {"model:7"}
        assert listener.wait(0) == frozenset()

    def test_who_waits_is_woken(self, listener: Listener) -> None:
        with started(in_a_thread(lambda: (time.sleep(A_MOMENT_S), wakeups.send(TASKS)))):
            began = time.monotonic()
            assert listener.wait(SOON_S * 2) == {TASKS}
            assert time.monotonic() - began < SOON_S

    def test_nothing_is_heard_when_the_time_is_over(self, listener: Listener) -> None:
        began = time.monotonic()

        assert listener.wait(A_MOMENT_S) == frozenset()
        assert time.monotonic() - began >= A_MOMENT_S * 0.9

    def test_everybody_who_listens_hears(self, harness: Harness) -> None:
        both = [wakeups.listen(), wakeups.listen()]
        wakeups.send(of_model(7))

        assert [listener.wait(SOON_S) for listener in both] == [{"model:7"}, {"model:7"}]
        for listener in both:
            listener.close()

    def test_only_the_channels_that_were_asked_for_are_heard(self, harness: Harness) -> None:
        tasks, models = wakeups.listen(TASKS), wakeups.listen("model")
        wakeups.send(TASKS)
        wakeups.send(of_model(7))

        assert tasks.wait(SOON_S) == {TASKS}
        assert models.wait(SOON_S) == {"model:7"}
        assert tasks.wait(0) == models.wait(0) == frozenset()
        tasks.close()
        models.close()

    def test_what_many_say_at_once_is_all_heard(self, listener: Listener) -> None:
        for number in range(50):
            wakeups.send(of_model(number))

        assert hear_until(listener, {of_model(number) for number in range(50)})

    def test_nobody_is_woken_before_the_commit(self, listener: Listener) -> None:
        with transaction.atomic():
            wakeups.send(of_model(7))
            assert listener.wait(A_MOMENT_S) == frozenset()

        assert listener.wait(SOON_S) == {"model:7"}

    def test_nobody_is_woken_by_what_was_rolled_back(self, listener: Listener) -> None:
        with transaction.atomic():
            wakeups.send(of_model(7))
            transaction.set_rollback(True)

        assert listener.wait(A_MOMENT_S) == frozenset()

    def test_saying_to_nobody_does_no_harm(self, harness: Harness) -> None:
        wakeups.send(of_model(7))

    def test_a_carrier_that_is_away_fails_no_transaction(self, harness: Harness) -> None:
        harness.break_saying()
        try:
            with transaction.atomic():
                wakeups.send(of_model(7))
        finally:
            harness.restore()

        assert not connection.needs_rollback

    def test_a_listener_that_was_cut_off_hears_again_and_says_all(
        self, harness: Harness, listener: Listener
    ) -> None:
        harness.cut(listener)
        harness.restore()

        assert hear_until(listener, {ALL})
        wakeups.send(of_model(7))
        assert hear_until(listener, {"model:7"})

    def test_a_carrier_that_is_not_there_yet_is_waited_for(self, harness: Harness) -> None:
        harness.break_saying()
        listener = wakeups.listen()
        assert listener.wait(0) == frozenset()
        harness.restore()

        assert hear_until(listener, {ALL})
        listener.close()

    def test_a_forked_child_has_ears_of_its_own(self, listener: Listener) -> None:
        def in_the_child() -> bool:
            is_told = listener.wait(SOON_S) == {ALL}
            listener.close()
            return is_told

        assert exit_code_of_fork(in_the_child) == 0
        wakeups.send(of_model(7))
        assert listener.wait(SOON_S) == {"model:7"}


def hear_until(listener: Listener, topics: set[str]) -> bool:
    """Whether all of these are heard soon."""
    missing, limit = set(topics), time.monotonic() + SOON_S
    while missing and time.monotonic() < limit:
        missing -= listener.wait(A_MOMENT_S)
    return not missing


def in_a_thread(work: Callable[[], object]) -> threading.Thread:
    def run() -> None:
        try:
            work()
        finally:
            connection.close()  # this thread's own

    return threading.Thread(target=run)


@contextmanager
def started(thread: threading.Thread) -> Iterator[None]:
    thread.start()
    try:
        yield
    finally:
        thread.join()


def exit_code_of_fork(work: Callable[[], bool]) -> int:
    """0 when a forked child finds that `work()` is true."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if work() else 1
        finally:
            os._exit(code)  # past everything that belongs to the parent
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
