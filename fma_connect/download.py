"""Downloads of weights to a file: resumed after a broken connection, and checked before the file appears."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from io import BufferedRandom
from pathlib import Path

import httpx

from fma_connect.digest import expected_sha256, sha256_of_etag
from fma_connect.exceptions import UnexpectedAnswer
from fma_connect.transport import BrokenTransfer, DamagedTransfer, Deadline, Params, Transport, pieces_of

__all__ = ["download"]


def download(
    transport: Transport,
    path: str,
    *,
    to: Path,
    headers: Mapping[str, str],
    params: Params | None = None,
    timeout_s: float | None = None,
) -> Path | None:
    """Download the body at `path` to the file `to`, which appears complete or not at all; None without a body (204).

    Memory does not grow with the body. A file with that name is replaced.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{to.name}.", suffix=".part", dir=to.parent)
    try:
        with open(handle, "w+b") as file:
            part = _Part(file)
            has_body = transport.exchange(
                "GET", path, lambda: {**headers, **part.resume_headers()}, part.receive, params=params,
                timeout_s=timeout_s,
            )  # fmt: skip
            if not has_body:
                return None
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, to)
        return to
    finally:
        with suppress(FileNotFoundError):
            Path(name).unlink()


class _Part:
    """The part that has arrived so far, and the ETag of its weights."""

    def __init__(self, file: BufferedRandom) -> None:
        self._file = file
        self._etag: str | None = None

    def resume_headers(self) -> dict[str, str]:
        self._file.flush()
        # Request the last byte again: a range that starts at the end would be refused (416).
        held_bytes = self._file.seek(0, os.SEEK_END) - 1
        if held_bytes <= 0 or self._etag is None:
            return {}
        self._file.truncate(held_bytes)
        # Without If-Range the rest could belong to a newer model.
        return {"Range": f"bytes={held_bytes}-", "If-Range": self._etag}

    def receive(self, response: httpx.Response, deadline: Deadline) -> bool:
        if response.status_code == httpx.codes.NO_CONTENT:
            return False
        held_bytes = self._file.seek(0, os.SEEK_END)
        if response.status_code == httpx.codes.PARTIAL_CONTENT:
            if not response.headers.get("content-range", "").startswith(f"bytes {held_bytes}-"):
                self._restart(None)
                raise BrokenTransfer("the server answered another range than the one asked for")
        else:
            self._restart(response)
        for piece in pieces_of(response, deadline):
            self._file.write(piece)
        self._check(response)
        return True

    def _restart(self, response: httpx.Response | None) -> None:
        self._file.seek(0)
        self._file.truncate()
        etag = None if response is None else response.headers.get("etag")
        self._etag = etag if sha256_of_etag(etag) else None

    def _check(self, response: httpx.Response) -> None:
        promised = sha256_of_etag(self._etag)
        if promised is None and "content-encoding" not in response.headers:
            promised = expected_sha256(response.headers.get("repr-digest"))
        if promised is None:
            kind = response.headers.get("content-type", "nothing")
            raise UnexpectedAnswer(f"the server answered {kind} without a sha256 to check it by")
        self._file.seek(0)
        if hashlib.file_digest(self._file, "sha256").hexdigest() != promised:
            self._restart(None)
            raise DamagedTransfer("the weights do not match their digest")
