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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
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
FORMAT = 1
_LENGTH = struct.Struct("<Q")
MOST_HEADER_BYTES = 2**20


@dataclass(frozen=True)
class Facts:
    """The facts of an update that the server needs beside its weights.

    params: the members of the query. metrics: plain JSON; None without any. key: its Idempotency-Key.
    """

    params: Mapping[str, int]
    metrics: Mapping[str, Any] | None = None
    key: str = field(default_factory=lambda: str(uuid.uuid4()))

    def is_same_update(self, other: Facts) -> bool:
        """Whether both are about one update, apart from the key."""
        return (dict(self.params), self.metrics) == (dict(other.params), other.metrics)


@dataclass(frozen=True)
class Kept:
    """A kept update. It is itself the body of a request, read from the file piece by piece."""

    path: Path
    facts: Facts
    headers: Mapping[str, str]
    size_bytes: int
    kept_at: float
    starts_at: int

    def pieces(self, start: int = 0) -> Iterator[bytes | memoryview]:
        with self.path.open("rb") as file:
            file.seek(self.starts_at + start)
            while piece := file.read(PIECE_BYTES):
                yield piece


class Outbox:
    """The one kept update of a client; a newer one takes its place.

    owner: a text that only this client has; an update of another one is never sent.
    """

    def __init__(self, path: Path, owner: str) -> None:
        self.path = path
        self._owner = hashlib.sha256(owner.encode()).hexdigest()

    def keep(self, body: RequestBody, facts: Facts) -> None:
        """Write an update, atomically and readable by its owner alone. An update that cannot be kept is still sent."""
        header = {
            "format": FORMAT,
            "owner": self._owner,
            "facts": asdict(facts),
            "headers": dict(body.headers),
            "size_bytes": body.size_bytes,
            "kept_at": time.time(),
        }
        try:
            self._write(json.dumps(header).encode(), body)
        except OSError as error:
            logger.warning("update_not_kept file=%s cause=%s", self.path, error.strerror or error)

    def load(self) -> Kept | None:
        """The kept update; None without one. A file that is damaged, too old, or of another client is removed."""
        try:
            with self.path.open("rb") as file:
                kept = self._read(file)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
            # Without the text of the error, which may quote the file.
            self._drop(f"the file cannot be read ({type(error).__name__})")
            return None
        if kept is None:
            self._drop("it is of another client")
            return None
        if time.time() - kept.kept_at > KEPT_FOR_S:
            self._drop(f"it was kept for more than {KEPT_FOR_S / 3600:g} hours")
            return None
        return kept

    def remove(self, facts: Facts) -> None:
        """Remove the kept update if it is still this one."""
        with suppress(OSError, ValueError, KeyError, struct.error):
            with self.path.open("rb") as file:
                header, _ = _header_of(file)
            if header["facts"]["key"] == facts.key:
                self.path.unlink()

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Whether this is the only one who sends the kept update now, in all processes and threads."""
        try:
            file = self.path.open("rb")
        except OSError:
            yield True
            return
        with file:
            try:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
                return
            yield True

    def _drop(self, why: str) -> None:
        logger.warning("kept_update_dropped file=%s reason=%s", self.path, why)
        with suppress(OSError):
            self.path.unlink()

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

    def _read(self, file: BufferedReader) -> Kept | None:
        header, starts_at = _header_of(file)
        if header["format"] != FORMAT:
            raise ValueError(f"format {FORMAT} is the only one known")
        if header["owner"] != self._owner:
            return None
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != expected_sha256(header["headers"]["Content-Digest"]):
            raise ValueError("the body is damaged")
        facts = Facts(**header["facts"])
        return Kept(self.path, facts, header["headers"], header["size_bytes"], header["kept_at"], starts_at)


def _header_of(file: BufferedReader) -> tuple[dict[str, Any], int]:
    """The header of the file, and where the body begins."""
    (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
    if length > MOST_HEADER_BYTES:
        raise ValueError("no header of an update is that long")
    header: dict[str, Any] = json.loads(file.read(length))
    return header, _LENGTH.size + length
