"""The update that the server has not confirmed yet, in a file beside the credential.

What was trained survives the end of the client, and a server that is away. The file has the facts of the update, its
idempotency key and its body as it is sent, so that it is one update however often it is sent. The server remembers a
key for a day; an update that is nearly as old is not sent any more.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import struct
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

from fma_connect.digest import expected_sha256
from fma_connect.encoding import RequestBody

try:
    import fcntl
except ImportError:  # Windows: two processes may send the same update, which the server counts once
    fcntl = None  # type: ignore[assignment]

__all__ = ["KEPT_FOR_S", "Facts", "Kept", "Outbox"]

logger = logging.getLogger("fma_connect")

KEPT_FOR_S = 23 * 3600.0
PIECE_BYTES = 2**20
FORMAT = 2
_LENGTH = struct.Struct("<Q")
MOST_HEADER_BYTES = 2**20


@dataclass(frozen=True)
class Facts:
    """The facts of an update, or of an initial model, that the server needs beside its weights.

    params: the members of the query. metrics: plain JSON; None without any. key: its Idempotency-Key.
    began_at: the time (Unix) before the key was sent for the first time.
    """

    params: Mapping[str, int]
    metrics: Mapping[str, Any] | None = None
    key: str = field(default_factory=lambda: str(uuid.uuid4()))
    began_at: float = field(default_factory=lambda: time.time())

    def is_same_update(self, other: Facts) -> bool:
        """Whether both are about one update, apart from the key."""
        return (dict(self.params), self.metrics) == (dict(other.params), other.metrics)

    def is_remembered(self) -> bool:
        """Whether the server surely recognises the key."""
        return time.time() - self.began_at <= KEPT_FOR_S


@dataclass(frozen=True)
class Kept:
    """A kept update. It is itself the body of a request, read piece by piece from the open file.

    The file at the path may be another one by then. Used in `with`, it closes the file at the end.
    """

    file: BufferedReader
    facts: Facts
    headers: Mapping[str, str]
    size_bytes: int
    starts_at: int

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, which also lets others send the update."""
        self.file.close()

    def pieces(self, start: int = 0) -> Iterator[bytes | memoryview]:
        at = self.starts_at + start
        self.file.seek(at)
        while piece := self.file.read(PIECE_BYTES):
            yield piece
            at += len(piece)
            self.file.seek(at)

    def is_same(self, body: RequestBody, facts: Facts) -> bool:
        """Whether this is the update with this body and these facts, apart from the key."""
        has_same_body = self.headers["Content-Digest"] == body.headers["Content-Digest"]
        return has_same_body and self.facts.is_same_update(facts)

    def is_whole(self) -> bool:
        """Whether the body has its digest."""
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
        return digest.hexdigest() == expected_sha256(self.headers["Content-Digest"])


class Outbox:
    """The one kept update of a client; a newer one takes its place.

    owner: a text that only this client has; an update of another one is never sent.
    A file that is damaged, too old, or of another client is removed by whoever reads it. A file that cannot be read now
    may be readable later, and stays.
    """

    def __init__(self, path: Path, owner: str) -> None:
        self.path = path
        self._owner = hashlib.sha256(owner.encode()).hexdigest()

    def keep(self, body: RequestBody, facts: Facts) -> bool:
        """Write an update, atomically and readable by its owner alone; return whether it is written.

        An update that cannot be kept is still sent.
        """
        header = {
            "format": FORMAT,
            "owner": self._owner,
            "facts": asdict(facts),
            "headers": dict(body.headers),
            "size_bytes": body.size_bytes,
        }
        try:
            self._write(json.dumps(header).encode(), body)
        except OSError as error:
            logger.warning("update_not_kept file=%s cause=%s", self.path, error.strerror or error)
            return False
        return True

    def begun(self, body: RequestBody, facts: Facts) -> Facts | None:
        """The facts, with the key, of the kept update if it is this one; None otherwise."""
        kept = self._opened(lambda kept: kept.is_same(body, facts))
        if kept is None:
            return None
        kept.close()
        return kept.facts

    def take(self, *, unless: tuple[RequestBody, Facts] | None = None) -> Kept | None:
        """Open the kept update to send it; None without one, or while somebody else, in any process, is sending it.

        unless: an update that is not taken if it is the kept one.
        """
        return self._opened(
            lambda kept: (unless is None or not kept.is_same(*unless)) and self._is_mine(kept.file)
        )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let nobody else take the kept update meanwhile."""
        with ExitStack() as stack:
            if fcntl is not None:  # elsewhere an open file could not be replaced
                with suppress(OSError):
                    self._is_mine(stack.enter_context(self.path.open("rb")))
            yield

    def has(self, facts: Facts) -> bool:
        """Whether the kept update is the one with this key."""
        try:
            with self.path.open("rb") as file:
                header, _ = _header_of(file)
            return bool(header["facts"]["key"] == facts.key)
        except (OSError, *_DAMAGE):
            return False

    def remove(self, facts: Facts) -> None:
        """Remove the kept update if it is still the one with this key.

        Windows removes no file that is open: who has opened it closes it first. A file that another process is sending
        stays, is sent again with its key, and counts once.
        """
        if self.has(facts):
            with suppress(OSError):
                self.path.unlink()

    def _opened(self, is_wanted: Callable[[Kept], bool]) -> Kept | None:
        """The kept update, checked and open; None without one, or with one that is not wanted or not usable."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return None
        except OSError as error:
            self._tell_unreadable(error)
            return None
        # Without the texts of errors, which may quote the file.
        why_useless = ""
        try:
            kept, why_useless = self._read(file)
            if kept is not None and is_wanted(kept):
                if kept.is_whole():
                    return kept
                why_useless = "the body is damaged"
        except OSError as error:
            self._tell_unreadable(error)
        except _DAMAGE as error:
            why_useless = f"the file cannot be read ({type(error).__name__})"
        of_file = os.fstat(file.fileno())
        file.close()
        if why_useless:
            self._drop(of_file, why_useless)
        return None

    def _read(self, file: BufferedReader) -> tuple[Kept | None, str]:
        """The update without a look at its body, or the reason why the file is of no use."""
        header, starts_at = _header_of(file)
        if header["format"] != FORMAT:
            return None, f"format {FORMAT} is the only one known"
        if header["owner"] != self._owner:
            return None, "it is of another client"
        facts = Facts(**header["facts"])
        if not facts.is_remembered():
            return None, f"it was kept for more than {KEPT_FOR_S / 3600:g} hours"
        size_bytes = os.fstat(file.fileno()).st_size - starts_at
        if size_bytes != header["size_bytes"]:
            return None, "the body is damaged"
        return Kept(file, facts, dict(header["headers"]), size_bytes, starts_at), ""

    def _is_mine(self, file: BufferedReader) -> bool:
        """Lock the file; whether this has succeeded, and the file is still the kept one."""
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            except OSError:
                pass  # a file system without locks: the server counts the update once
        # On Windows an open file is neither removed nor replaced.
        return os.name == "nt" or self._is_still(os.fstat(file.fileno()))

    def _is_still(self, of_file: os.stat_result) -> bool:
        try:
            return os.path.samestat(of_file, self.path.stat())
        except OSError:
            return False

    def _drop(self, of_file: os.stat_result, why: str) -> None:
        if not self._is_still(of_file):  # somebody has put another one there
            return
        logger.warning("kept_update_dropped file=%s reason=%s", self.path, why)
        with suppress(OSError):
            self.path.unlink()

    def _tell_unreadable(self, error: OSError) -> None:
        logger.warning("kept_update_unreadable file=%s cause=%s", self.path, error.strerror or error)

    def _write(self, header: bytes, body: RequestBody) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, written = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)  # mode 0600
        try:
            with open(handle, "wb") as file:
                file.write(_LENGTH.pack(len(header)) + header)
                for piece in body.pieces():
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            os.replace(written, self.path)
        finally:
            with suppress(FileNotFoundError):
                Path(written).unlink()


# Errors of reading a file that was written by something else, or not to its end.
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error)


def _header_of(file: BufferedReader) -> tuple[dict[str, Any], int]:
    """The header of the file, and where the body begins."""
    (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
    if length > MOST_HEADER_BYTES:
        raise ValueError("no header of an update is that long")
    header: dict[str, Any] = json.loads(file.read(length))
    return header, _LENGTH.size + length
