"""The contract of wake-ups on named pipes, and what killed and hanging listeners leave."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from fma_django import wakeups
from fma_django.wakeups import ALL, Listener, choose, of_model
from fma_django.wakeups.named_pipes import NamedPipes
from tests.contracts.wakeups import SOON_S, Harness, WakeupsContract

pytestmark = pytest.mark.django_db(transaction=True)


class PipesHarness(Harness):
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._aside = folder.with_name("aside")

    def cut(self, listener: Listener) -> None:
        for pipe in self._folder.iterdir():
            pipe.unlink()

    def break_saying(self) -> None:
        if self._folder.exists():
            self._folder.rename(self._aside)
        self._folder.touch()

    def restore(self) -> None:
        if self._folder.is_file():
            self._folder.unlink()
        if self._aside.exists():
            self._aside.rename(self._folder)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Longer than the name of a socket may be.
    folder = tmp_path / ("a-long-name-" * 10) / "wakeups"
    folder.parent.mkdir()
    monkeypatch.setattr(choose, "get_carrier", lambda: NamedPipes(folder))
    return folder


class TestNamedPipes(WakeupsContract):
    @pytest.fixture
    def harness(self, folder: Path) -> PipesHarness:
        return PipesHarness(folder)


def test_what_a_killed_listener_leaves_is_taken_away(folder: Path) -> None:
    pid = os.fork()
    if pid == 0:
        listener = wakeups.listen()  # noqa: F841
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert len(list(folder.iterdir())) == 1

    wakeups.send(of_model(7))

    assert list(folder.iterdir()) == []


def test_a_pipe_outlives_no_parent_in_its_children(folder: Path) -> None:
    listener = wakeups.listen()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(reading, 1)
        os._exit(0)
    listener.close()
    listener = wakeups.listen()
    try:
        wakeups.send(of_model(7))
        assert listener.wait(SOON_S) == {"model:7"}
        assert len(list(folder.iterdir())) == 1
    finally:
        listener.close()
        os.write(writing, b".")
        os.waitpid(pid, 0)
        os.close(reading)
        os.close(writing)


def test_who_listens_too_slowly_knows_that_something_was_missed(folder: Path) -> None:
    listener = wakeups.listen()
    for number in range(20_000):
        wakeups.send(of_model(number))

    heard = listener.wait(SOON_S)

    assert ALL in heard
    assert of_model(0) in heard
    wakeups.send(of_model(7))
    assert listener.wait(SOON_S) == {"model:7"}
    listener.close()
    assert list(folder.iterdir()) == []
