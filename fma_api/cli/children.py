"""The parts of a server, run as child processes that live and end together."""

import contextlib
import multiprocessing.context
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType, TracebackType

import django
from django.db import connections

from fma_api.cli.parent_death import die_with
from fma_api.cli.problem import Problem, exit_with_sentence

STOP_WITHIN_SECONDS = 20  # then a child is killed; an aggregation that was cut off is done again
HEARD_WITHIN_SECONDS = 1.0  # systemd sends a signal to all processes, and a child may hear it first
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Measured: a child that is forked has all of Django at once; a new interpreter needs 1.4 s of CPU for it. The libraries
# of macOS do not bear a fork.
_Process = (
    multiprocessing.context.ForkProcess if sys.platform == "linux" else multiprocessing.context.SpawnProcess
)


class Children:
    """Child processes in a `with` block: SIGINT, SIGTERM and SIGHUP ask them to stop, and leaving the block ends all.

    When this process is killed and cannot end them, the kernel does (parent_death).
    """

    def __init__(self) -> None:
        self.is_stopping = False
        self._children: list[BaseProcess] = []
        self._asked: list[BaseProcess] = []

    def __enter__(self) -> "Children":
        for number in SIGNALS:
            # nohup lets SIGHUP be ignored. A shell does so with SIGINT in the background, and means the shell's own.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ask_to_stop()
        deadline = time.monotonic() + STOP_WITHIN_SECONDS
        for child in self._children:
            child.join(max(0.0, deadline - time.monotonic()))
            if child.exitcode is None:
                child.kill()
                child.join()

    def start(self, command: str, run: Callable[[], None], *, name: str) -> BaseProcess:
        """Start a process that calls `run`, which can be pickled, with Django set up.

        command: as `ps -o comm` shows the process, "fma worker"; name: as a sentence says it, "the worker".
        """
        connections.close_all()  # a connection has one owner
        child = _Process(target=_child, args=(os.getpid(), command, run), name=name)
        # Until the child has its own: ours would run in it.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            child.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self._children.append(child)
        return child

    def check(self) -> None:
        """Raise Problem when a child has ended that nobody asked to."""
        for child in self._children:
            if child.exitcode is not None and not self._is_asked_to_stop(child):
                raise Problem(
                    f"{child.name} ended {how_it_ended(child.exitcode)}, and everything else with it"
                )

    def _is_asked_to_stop(self, ended: BaseProcess) -> bool:
        """Whether a signal has come, or comes at once: `ended` may have heard it before this process."""
        if ended.exitcode in (0, -signal.SIGTERM):
            deadline = time.monotonic() + HEARD_WITHIN_SECONDS
            while not self.is_stopping and time.monotonic() < deadline:
                time.sleep(0.05)
        return self.is_stopping

    def wait(self) -> None:
        """Return after a signal; raise Problem as soon as a child ends by itself."""
        while not self.is_stopping:  # for as long as the server runs
            self.check()
            time.sleep(0.1)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.is_stopping and number == signal.SIGINT:  # the second Ctrl-C: at once
            for child in self._children:
                child.kill()
        self._ask_to_stop()

    def _ask_to_stop(self) -> None:
        self.is_stopping = True
        for child in self._children:
            if child not in self._asked:
                self._asked.append(child)
                child.terminate()


def _child(parent: int, command: str, run: Callable[[], None]) -> None:
    # A group of its own: Ctrl-C comes to the parent, which decides who hears of it and when.
    os.setpgid(0, 0)
    die_with(parent)
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # forgets the one that came to the group of the parent meanwhile
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal is the parent's
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    with contextlib.suppress(OSError):  # it is Linux alone that has this file
        Path("/proc/self/comm").write_text(command)
    with exit_with_sentence():
        django.setup()  # nothing is left to do in a fork
        run()


def how_it_ended(code: int) -> str:
    """The end of a process in words, from multiprocessing's exit code."""
    if code < 0:
        return f"by signal {signal.Signals(-code).name}"
    return f"with exit code {code}"
