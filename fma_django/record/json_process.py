"""Large JSON in a process of its own: parsing it holds the interpreter's lock for seconds, while all requests wait.

A web process has one such process. It starts when it is first needed, and ends when nobody needs it for a while. A body
is whole before it takes the process, so that no sender decides for how long it is taken.
"""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import orjson

from fma_core.arrays.codecs.json_layouts import Layout
from fma_core.arrays.spec import Spec
from fma_django.errors import JsonProcessEnded, MemoryInUse
from fma_django.record.json_weights import Wanted

WAIT_S = 30.0
"""Then a request that finds the process taken is told to come again."""
MOST_S = 120.0
"""A process that takes longer for one request is ended."""
IDLE_S = 60.0
KEPT_BYTES = 256 * 2**20
"""A process that needed more memory for a body is ended with it: that gives all of it back, and at once."""
KNOWN = re.compile("PATH|HOME|TZ|LANG|LC_.+|TMPDIR|PYTHON.+|(DY)?LD_.+")
"""The variables of the environment that the process has, too."""
PROGRAM = """
import sys
sys.path[:] = sys.argv[2:]
from fma_django.record.json_program import main
main(int(sys.argv[1]))
"""


class LargeJson:
    """The JSON of one request in the process that parses it, until it is closed.

    Every method raises JsonProcessEnded when that process ends or is too slow.
    """

    def __init__(self, pieces: Iterable[bytes], size_bytes: int) -> None:
        """Wait for the process, and send it the text. Raises MemoryInUse."""
        self._process = _place.take()
        self.needs_bytes = 0
        self._is_closed = False
        try:
            self.needs_bytes = int(self._process.ask("load", size_bytes, pieces=pieces))
        except BaseException:
            self.close()
            raise

    def parse(self, *, weights: str | None) -> Any:
        """The value, in which HeldJson stands for the weights.

        weights: the member that has them; None for a body that is weights and nothing else.
        Raises MalformedJson, and TooLarge for other members that are large.
        """
        text, is_held = self._process.ask("parse", weights)
        value = orjson.loads(text)
        if not is_held:
            return value
        held = HeldJson(self)
        return held if weights is None else {**value, weights: held}

    def fingerprint(self) -> str:
        """The SHA-256 (hex) of the whole value, in canonical JSON."""
        return str(self._process.ask("fingerprint"))

    def write(self, path: Path, wanted: Wanted) -> tuple[Spec, Layout, str, int]:
        """Write the weights into a file, and close; their arrays, layout, SHA-256 and size.

        Raises what `weights_of` does.
        """
        try:
            written: tuple[Spec, Layout, str, int] = self._process.ask("write", str(path), wanted)
        finally:
            self.close()  # the next request need not wait for the database of this one
        return written

    def close(self) -> None:
        """Leave the process to the next request."""
        if not self._is_closed:
            self._is_closed = True
            _place.give_back(self._process, is_kept=self.needs_bytes <= KEPT_BYTES)


@dataclass(frozen=True)
class HeldJson:
    """The weights of a body of JSON, in the place of their value."""

    body: LargeJson


class _Process:
    """A process, and this end of its pipe."""

    def __init__(self) -> None:
        # The server's secrets are none of its business.
        environment = {name: value for name, value in os.environ.items() if KNOWN.fullmatch(name)}
        self._line, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(theirs.fileno()), *sys.path],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**environment, "OPENBLAS_NUM_THREADS": "1"},
                process_group=0,  # a terminal's Ctrl-C is for the server
            )

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def ask(self, command: str, *arguments: Any, pieces: Iterable[bytes] = ()) -> Any:
        try:
            self._line.send((command, arguments))
            for piece in pieces:
                self._line.send_bytes(piece)
            is_done, answer = self._line.recv()
        except (EOFError, OSError) as error:
            raise JsonProcessEnded(
                f"the process that parses large JSON ended with status {self.end()}"
            ) from error
        if not is_done:
            raise answer
        return answer

    def forget(self) -> None:
        """Let it free the memory of a body, and wait for nothing."""
        with suppress(OSError):  # it was killed
            self._line.send(("forget", ()))

    def end(self) -> int:
        """Kill it, and wait until its memory is free; its exit status."""
        self._process.kill()
        return self._process.wait()

    def leave(self) -> None:
        """Close the pipe of a process that another one has started."""
        self._line.close()
        self._process.returncode = 0


class _Place:
    """The one process, and whether it is free."""

    def __init__(self) -> None:
        self._is_free = threading.Lock()
        self._process: _Process | None = None
        self._timer: threading.Timer | None = None

    def take(self) -> _Process:
        """Raises MemoryInUse when others have it for too long, JsonProcessEnded when none can be started."""
        if not self._is_free.acquire(timeout=WAIT_S):
            raise MemoryInUse("other large JSON is being read; try again later, or send safetensors")
        try:
            self._stop_timer()
            if self._process is None or self._process.has_ended:
                self._process = _Process()
            self._start_timer(MOST_S, self._process.end)
        except BaseException as error:
            self._is_free.release()
            if isinstance(error, OSError | RuntimeError):  # no process, or no thread for the timer
                raise JsonProcessEnded(f"no process can be started to parse large JSON: {error}") from error
            raise
        return self._process

    def give_back(self, process: _Process, *, is_kept: bool) -> None:
        self._stop_timer()
        try:
            if is_kept:
                process.forget()
                self._start_timer(IDLE_S, self._end_idle)
            else:
                process.end()
        except RuntimeError:  # no more threads: nobody would end it later
            process.end()
        finally:
            self._is_free.release()

    def forget_after_fork(self) -> None:
        """The process stays with its parent."""
        if self._process is not None:
            self._process.leave()
        self._is_free, self._process, self._timer = threading.Lock(), None, None

    def _end_idle(self) -> None:
        if self._is_free.acquire(blocking=False):
            # Whoever came and went meanwhile has started another timer.
            if self._process is not None and self._timer is threading.current_thread():
                self._process.end()
                self._process = None
            self._is_free.release()

    def _start_timer(self, seconds: float, end: Callable[[], object]) -> None:
        self._timer = threading.Timer(seconds, end)
        self._timer.daemon = True
        self._timer.start()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


_place = _Place()
os.register_at_fork(after_in_child=_place.forget_after_fork)
