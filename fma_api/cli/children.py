"""Other `fma` commands, run as child processes that live and end together."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from types import FrameType, TracebackType

from fma_api.cli.parent_death import die_with
from fma_api.cli.problem import Problem

STOP_WITHIN_SECONDS = 20  # then a child is killed; an aggregation that was cut off is done again


@dataclass(frozen=True)
class Child:
    """name: as a sentence says it, "the worker"."""

    name: str
    process: "subprocess.Popen[bytes]"


class Children:
    """Child processes in a `with` block: SIGINT and SIGTERM ask them to stop, and leaving the block ends them all.

    When this process is killed and cannot end them, the kernel does (parent_death).
    """

    def __init__(self) -> None:
        self.is_stopping = False
        self._children: list[Child] = []
        self._asked: list[Child] = []

    def __enter__(self) -> "Children":
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ask_to_stop()
        deadline = time.monotonic() + STOP_WITHIN_SECONDS
        for child in self._children:
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()

    def start(self, name: str, *arguments: str) -> Child:
        """Start `fma` with these arguments."""
        parent = os.getpid()
        process = subprocess.Popen(
            [sys.executable, "-m", "fma_api.cli", *arguments],
            stdin=subprocess.DEVNULL,
            # A group of its own: Ctrl-C comes to us, and we decide who hears of it and when.
            process_group=0,
            # This process has one thread, so running Python between fork and exec is safe.
            preexec_fn=lambda: die_with(parent),
        )
        child = Child(name, process)
        self._children.append(child)
        return child

    def check(self) -> None:
        """Raise Problem when a child has ended that nobody asked to."""
        if self.is_stopping:
            return
        for child in self._children:
            code = child.process.poll()
            if code is not None:
                raise Problem(f"{child.name} ended {_how(code)}, and everything else with it")

    def wait(self) -> None:
        """Return after a signal; raise Problem as soon as a child ends by itself."""
        while not self.is_stopping:  # for as long as the server runs
            self.check()
            time.sleep(0.1)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.is_stopping and number == signal.SIGINT:  # the second Ctrl-C: at once
            for child in self._children:
                child.process.kill()
        self._ask_to_stop()

    def _ask_to_stop(self) -> None:
        self.is_stopping = True
        for child in self._children:
            if child not in self._asked:
                self._asked.append(child)
                child.process.terminate()


def _how(code: int) -> str:
    if code < 0:
        return f"by signal {signal.Signals(-code).name}"
    return f"with exit code {code}"
