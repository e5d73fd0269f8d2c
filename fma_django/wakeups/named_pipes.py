"""Wake-ups between the processes of one machine: each listener has a named pipe in a folder that senders read.

Pipes rather than unix sockets: their names may be long, sixty thousand bytes wait in one where ten datagrams wait in a
socket, and a pipe that nobody reads any more says so when it is opened.
"""

import contextlib
import errno
import os
import select
import uuid
from collections.abc import Collection
from pathlib import Path

import structlog

from fma_django.wakeups.listener import ALL
from fma_django.wakeups.topics import channel_of

log = structlog.get_logger(__name__)

PIPE_MODE = 0o660
MISSED = ".missed"  # beside a pipe that was full
MAKING = ".making"


class NamedPipes:
    """A folder of pipes, `<channel>+<channel>.<pid>.<random>`; the first listener makes it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def say(self, topic: str) -> None:
        try:
            names = os.listdir(self._folder)  # noqa: PTH208 (no Path is made for each)
        except FileNotFoundError:  # nobody has ever listened
            return
        channel = channel_of(topic)
        for name in names:
            if not name.startswith(".") and channel in name.partition(".")[0].split("+"):
                try:
                    _say_to(self._folder / name, topic)
                except OSError as error:  # the others hear it all the same
                    log.warning("pipe_unusable", pipe=name, error=repr(error))

    def open_ear(self, channels: Collection[str]) -> "PipeEar":
        self._folder.mkdir(parents=True, exist_ok=True)
        return PipeEar(self._folder, f"{'+'.join(channels)}.{os.getpid()}.{uuid.uuid4().hex}")


class PipeEar:
    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / name
        making = folder / f".{name}{MAKING}"
        os.mkfifo(making, PIPE_MODE)
        try:
            # With a writer of its own, so that the pipe does not end whenever the last sender has closed it.
            self._reader = os.open(making, os.O_RDONLY | os.O_NONBLOCK)
            self._writer = os.open(making, os.O_WRONLY | os.O_NONBLOCK)
            # Not before somebody reads it: senders take those away that nobody reads.
            making.rename(self._path)
        except BaseException:
            making.unlink(missing_ok=True)
            raise
        self._poll = select.poll()
        self._poll.register(self._reader, select.POLLIN)

    def hear(self, timeout_s: float) -> set[str]:
        if not self._poll.poll(timeout_s * 1000):
            if not self._path.exists():
                raise FileNotFoundError(errno.ENOENT, "the pipe was taken away", str(self._path))
            return set()
        waiting = b""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self._reader, 1 << 16):
                waiting += piece
        topics = set(waiting.decode().split())
        try:
            _missed(self._path).unlink()
        except FileNotFoundError:
            return topics
        return {*topics, ALL}

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        _missed(self._path).unlink(missing_ok=True)
        self.close_in_fork()

    def close_in_fork(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


def _say_to(pipe: Path, topic: str) -> None:
    line = f"{topic}\n".encode()
    try:
        descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        _take_away(pipe)
        return
    try:
        os.write(descriptor, line)
    except BrokenPipeError:
        _take_away(pipe)
    except BlockingIOError:
        # Full. What is marked before a pipe is emptied is seen by who empties it; it may just have been emptied, and
        # then there is room to say so.
        _missed(pipe).touch()
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(descriptor, line)
    finally:
        os.close(descriptor)


def _missed(pipe: Path) -> Path:
    return pipe.with_name(f".{pipe.name}{MISSED}")


def _take_away(pipe: Path) -> None:
    """Remove a pipe whose listener was killed."""
    pipe.unlink(missing_ok=True)
    _missed(pipe).unlink(missing_ok=True)
