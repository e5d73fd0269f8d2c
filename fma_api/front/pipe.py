"""A stream of pieces that is sent no faster than its receiver takes it.

granian's own streams take everything at once and keep in memory what the client has not read: a large model, for each
client that reads slowly. What it reads at the client's pace is a file; so pieces go through a named pipe.
"""

import errno
import fcntl
import os
import select
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

OPENED_WITHIN_S = 5.0  # a client that has gone before its answer is never read for
SILENCE_S = 60.0  # then a client that takes nothing is given up, and its thread is free again
PIPE_BYTES = 1 << 20
LOOK_EVERY_S = 0.002
_F_SETPIPE_SZ = getattr(fcntl, "F_SETPIPE_SZ", None)  # of Linux


def pour(pieces: Iterator[bytes], open_reader: Callable[[Path], None]) -> None:
    """Write all pieces into a new pipe, which `open_reader` lets somebody read; ends when nobody does any more."""
    with tempfile.TemporaryDirectory(prefix="fma-pipe-") as folder:
        pipe = Path(folder, "pipe")
        os.mkfifo(pipe, 0o600)
        open_reader(pipe)
        writer = _writer(pipe)
    if writer is None:
        return
    try:
        if _F_SETPIPE_SZ is not None:
            fcntl.fcntl(writer, _F_SETPIPE_SZ, PIPE_BYTES)
        for piece in pieces:
            _write(writer, piece)
    except BrokenPipeError:
        pass  # the client has gone
    finally:
        os.close(writer)


def _writer(pipe: Path) -> int | None:
    """The end to write to, once there is a reader; None when the client has gone before."""
    give_up_at = time.monotonic() + OPENED_WITHIN_S
    while True:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        if time.monotonic() > give_up_at:
            return None
        time.sleep(LOOK_EVERY_S)


def _write(writer: int, piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        try:
            left = left[os.write(writer, left) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(writer, select.POLLOUT)
            if not poll.poll(SILENCE_S * 1000):
                raise BrokenPipeError("nothing was taken for too long") from None
