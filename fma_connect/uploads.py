"""Large updates in parts: a connection that is cut costs what was on its way, not what had arrived.

The server's `uploads/` speaks tus 1.0.0 (https://tus.io/protocols/resumable-upload): begun by POST, continued by PATCH,
and after a failure asked by HEAD how much is there.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import httpx

from fma_connect.encoding import RequestBody
from fma_connect.exceptions import APIException, Conflict, NotFound, Refused, UnexpectedAnswer
from fma_connect.transport import SILENCE_TIMEOUT_S, Answer, Deadline, Params, Transport, pieces_of

__all__ = ["LEAST_BYTES", "push_in_parts"]

logger = logging.getLogger("fma_connect")

UPLOADS = "api/v1/uploads/"
UPDATES = "api/v1/model_updates/"
TUS = {"Tus-Resumable": "1.0.0"}
# Smaller bodies are sent again as a whole.
LEAST_BYTES = 8 * 2**20
# One request each, because proxies that keep a request until they have all of it forget it when it is cut.
PART_BYTES = 8 * 2**20
MOST_BEGINNINGS = 3
# How fast the server looks at a complete body, at least, before it answers.
LOOKS_AT_BYTES_PER_S = 8 * 2**20


def push_in_parts(
    transport: Transport,
    body: RequestBody,
    *,
    params: Params,
    headers: Mapping[str, str],
    timeout_s: float | None = None,
) -> Answer | None:
    """What POST model_updates/ answers to this body; None from a server that knows no uploads.

    params: what is said of the update. headers: who says it. timeout_s: of all of it. Raises as Transport.call.
    """
    deadline = transport.deadline(timeout_s)
    key = str(uuid.uuid4())
    for beginning in range(1, MOST_BEGINNINGS + 1):
        try:
            upload = _begin(transport, body, params, headers, deadline)
        except NotFound:
            return None
        try:
            upload.send()
            return upload.finish(key)
        except NotFound as gone:
            # It has expired, or given way to others. What it made, if it did, is found again by the key.
            if beginning == MOST_BEGINNINGS:
                raise
            logger.warning("upload_lost cause=%s", gone)
        except Refused:
            upload.give_up()
            raise
    raise AssertionError("unreachable")


def _begin(
    transport: Transport,
    body: RequestBody,
    params: Params,
    headers: Mapping[str, str],
    deadline: Deadline,
) -> _Upload:
    said = {**headers, **TUS, "Upload-Length": str(body.size_bytes)}
    if "Content-Encoding" in body.headers:
        said["Content-Encoding"] = body.headers["Content-Encoding"]
    if "Content-Digest" in body.headers:
        said["Repr-Digest"] = body.headers["Content-Digest"]
    answer = transport.call(
        "POST", UPLOADS, params=params, headers=said, timeout_s=deadline.remaining_s()
    ).json()
    if not isinstance(answer, dict) or "id" not in answer:
        raise UnexpectedAnswer("the server began an upload without saying which")
    return _Upload(transport, str(answer["id"]), body, headers, deadline)


class _Upload:
    """One body on its way. As the body of a request it is the next part of itself."""

    def __init__(
        self,
        transport: Transport,
        upload_id: str,
        body: RequestBody,
        headers: Mapping[str, str],
        deadline: Deadline,
    ) -> None:
        self._transport = transport
        self._id = upload_id
        self._path = f"{UPLOADS}{upload_id}/"
        self._body = body
        self._who = headers
        self._deadline = deadline
        self._offset = 0
        self._is_unsure = False

    @property
    def size_bytes(self) -> int:
        return min(self._body.size_bytes - self._offset, PART_BYTES)

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Content-Type": "application/offset+octet-stream", "Upload-Offset": str(self._offset)}

    def pieces(self, start: int = 0) -> Iterator[bytes | memoryview]:
        left = self.size_bytes - start
        for piece in self._body.pieces(self._offset + start):
            yield piece[:left]
            left -= len(piece)
            if left <= 0:
                return

    def send(self) -> None:
        """Bring all bytes there."""
        while self._offset < self._body.size_bytes:
            try:
                self._offset = self._transport.exchange(
                    "PATCH",
                    self._path,
                    self._next_headers,
                    _offset_of,
                    body=self,
                    timeout_s=self._deadline.remaining_s(),
                )
            except Conflict as conflict:
                # Something of an attempt that was given up as lost arrived after all.
                if conflict.code != "wrong_offset" or self._deadline.remaining_s() <= 0:
                    raise
                continue
            self._is_unsure = False

    def finish(self, key: str) -> Answer:
        """Make it an update."""
        return self._transport.call(
            "POST",
            UPDATES,
            params={"upload": self._id},
            headers=self._who,
            idempotency_key=key,
            timeout_s=self._deadline.remaining_s(),
            silence_s=SILENCE_TIMEOUT_S + self._body.size_bytes / LOOKS_AT_BYTES_PER_S,
        )

    def give_up(self) -> None:
        """Tell the server that it need not keep it."""
        with suppress(APIException):
            self._transport.exchange(
                "DELETE", self._path, lambda: {**self._who, **TUS}, _nothing_of, timeout_s=1.0
            )

    def _next_headers(self) -> Mapping[str, str]:
        # Asked before each attempt: after a failed one nobody here knows how much of it arrived.
        if self._is_unsure:
            self._offset = self._transport.exchange(
                "HEAD",
                self._path,
                lambda: {**self._who, **TUS},
                _offset_of,
                timeout_s=self._deadline.remaining_s(),
            )
            logger.info("upload_resumed upload=%s offset=%d", self._id, self._offset)
        self._is_unsure = True
        return {**self._who, **TUS, **self.headers}


def _offset_of(response: httpx.Response, deadline: Deadline) -> int:
    _nothing_of(response, deadline)
    said = response.headers.get("upload-offset", "")
    if not said.isdecimal():
        raise UnexpectedAnswer(f"Upload-Offset must be a number, got {said!r}")
    return int(said)


def _nothing_of(response: httpx.Response, deadline: Deadline) -> Any:
    for _ in pieces_of(response, deadline):
        pass
