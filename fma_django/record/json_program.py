"""The program of the process that parses large JSON: what `json_process` starts, and talks to.

It loads neither Django nor the settings, serves one body after the other, and ends with the pipe that it is told of.
"""

import gc
import hashlib
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import orjson

from fma_core.arrays.codecs import json_bytes
from fma_core.arrays.codecs.json_layouts import Layout
from fma_core.arrays.spec import Spec
from fma_core.errors import FMAError, TooLarge
from fma_django.record.json_weights import Wanted, weights_of

NICE = 5
"""A quarter of the time of a process that serves requests, while both want all of it."""
MEMBERS_BYTES = 2**20
"""The members that go back to the process of the request are parsed there."""
HELD = (dict, list, str)
"""The kinds of values that may be large."""


def main(descriptor: int) -> None:
    """Serve the other end of a pipe until it is closed."""
    _give_way()
    gc.freeze()
    gc.disable()  # JSON has no cycles, and looking for some takes as long as parsing it
    with suppress(EOFError, ConnectionError), Connection(descriptor) as line:
        body = _Body(line)
        commands: Mapping[str, Callable[..., Any]] = {
            "load": body.load,
            "parse": body.parse,
            "fingerprint": body.fingerprint,
            "write": body.write,
        }
        while True:
            command, arguments = line.recv()
            if command == "forget":
                body.forget()
                continue
            try:
                answer = True, commands[command](*arguments)
            except (FMAError, OSError) as error:
                answer = False, error.with_traceback(None)
            line.send(answer)


def _give_way() -> None:
    """Let the processes that serve requests go first, also where memory is short."""
    os.nice(NICE)
    # systemd and a terminal send them to all at once; the end of the pipe says when the requests are answered.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):  # it is Linux alone that has these files
        Path("/proc/self/oom_score_adj").write_text("1000")
        Path("/proc/self/comm").write_text("fma json")


class _Body:
    """The body that is served now."""

    def __init__(self, line: Connection) -> None:
        self._line = line
        self._text = bytearray()
        self._value: Any = None
        self._held: Any = None

    def load(self, size_bytes: int) -> int:
        """Take in the text, which follows in pieces, and tell how much memory it needs."""
        self._text = bytearray(size_bytes)
        taken = 0
        while taken < size_bytes:
            taken += self._line.recv_bytes_into(self._text, taken)
        return json_bytes.parsed_bytes(self._text)

    def parse(self, weights: str | None) -> tuple[bytes, bool]:
        """Parse the text; give its members as JSON, and whether weights are held back.

        weights: the member that has them, in whose place null stands; None for a body that is weights and nothing else.
        """
        self._value = value = json_bytes.loads(self._text)
        self._text = bytearray()
        if weights is None:
            self._held = value
            return (b"null", True) if isinstance(value, HELD) else (orjson.dumps(value), False)
        if not isinstance(value, dict):
            return orjson.dumps(type(value)()), False  # refused for its kind
        self._held = value.get(weights)
        is_held = isinstance(self._held, HELD)
        members = orjson.dumps({**value, weights: None} if is_held else value)
        if len(members) > MEMBERS_BYTES:
            raise TooLarge(
                f"all members of this body but the weights may have {MEMBERS_BYTES} bytes; they have {len(members)}"
            )
        json_bytes.require_few_containers(members)
        return members, is_held

    def fingerprint(self) -> str:
        """The SHA-256 (hex) of the whole value."""
        return hashlib.sha256(orjson.dumps(self._value, option=orjson.OPT_SORT_KEYS)).hexdigest()

    def write(self, path: str, wanted: Wanted) -> tuple[Spec, Layout, str, int]:
        """Write the canonical bytes of the weights into a file; give their arrays, layout, SHA-256 and size."""
        spec, layout, data = weights_of(self._held, wanted)
        Path(path).write_bytes(data)
        return spec, layout, hashlib.sha256(data).hexdigest(), len(data)

    def forget(self) -> None:
        """Free the memory of this body."""
        self._text, self._value, self._held = bytearray(), None, None
        gc.collect()  # an error may have left one with its frames
