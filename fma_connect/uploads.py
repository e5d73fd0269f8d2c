"""Uploads of large updates in parts: after a broken connection, only the part that had not arrived is sent again.

The server's `uploads/` speaks tus 1.0.0 (https://tus.io/protocols/resumable-upload): POST begins an upload, PATCH
continues it, and after a failure HEAD tells how much has arrived.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import httpx

from fma_connect.encoding import RequestBody
from fma_connect.exceptions import (
    APIException,
    Conflict,
    ConnectionFailed,
    NotFound,
    Refused,
    ServerFailed,
    TooManyRequests,
    UnexpectedAnswer,
)
from fma_connect.transport import SILENCE_TIMEOUT_S, Answer, Deadline, Params, Transport, pieces_of

__all__ = ["LEAST_BYTES", "Uploads"]

logger = logging.getLogger("fma_connect")

UPLOADS = "api/v1/uploads/"
UPDATES = "api/v1/model_updates/"
TUS = {"Tus-Resumable": "1.0.0"}
# Smaller bodies are sent again as a whole.
LEAST_BYTES = 8 * 2**20
# One request for each part: a proxy that buffers whole requests loses a request that is cut off.
PART_BYTES = 8 * 2**20
MOST_BEGINNINGS = 3
PAUSE_S = 0.2
# The lowest speed at which the server checks a complete body before it answers.
LOOKS_AT_BYTES_PER_S = 8 * 2**20


class Uploads:
    """The uploads of one client. An upload that ran out of time continues when the same update is pushed again."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._are_known = True
        # By the digest of the body and its parameters: the upload, and the idempotency key of its update.
        self._unfinished: dict[tuple[Any, ...], tuple[str, str]] = {}

    def push(
        self,
        body: RequestBody,
        *,
        params: Params,
        headers: Mapping[str, str],
    ) -> Answer | None:
        """Push a body in parts and return the answer of POST model_updates/; None when the server has no uploads.

        params: the facts about the update. headers: the client's credential.
        Raises as Transport.call.
        """
        if not self._are_known:
            return None
        deadline = self._transport.deadline()
        identity = (body.headers["Content-Digest"], *sorted(params.items()))
        upload_id, key = self._unfinished.pop(identity, (None, str(uuid.uuid4())))
        self._give_up_others(headers)
        for attempt in range(1, MOST_BEGINNINGS + 1):
            is_unsure = upload_id is not None
            if upload_id is None:
                upload_id = self._begin(body, params, headers, deadline)
            if upload_id is None:
                return None
            upload = _Upload(self._transport, upload_id, body, headers, deadline, is_unsure=is_unsure)
            try:
                upload.send()
                return upload.finish(key)
            except NotFound as gone:
                # The server has dropped it: it has expired, or others needed the space.
                if attempt == MOST_BEGINNINGS:
                    raise
                logger.warning("upload_lost cause=%s", gone)
                upload_id = None
            except (ConnectionFailed, TooManyRequests, ServerFailed):
                self._unfinished[identity] = (upload_id, key)
                raise
            except Refused:
                _give_up(self._transport, upload_id, headers)
                raise
        raise AssertionError("unreachable")

    def _begin(
        self, body: RequestBody, params: Params, headers: Mapping[str, str], deadline: Deadline
    ) -> str | None:
        sent = {
            **headers,
            **TUS,
            "Upload-Length": str(body.size_bytes),
            "Repr-Digest": body.headers["Content-Digest"],
        }
        if "Content-Encoding" in body.headers:
            sent["Content-Encoding"] = body.headers["Content-Encoding"]
        try:
            answer = self._transport.call(
                "POST", UPLOADS, params=params, headers=sent, deadline=deadline
            ).json()
        except NotFound:
            self._are_known = False
            return None
        if not isinstance(answer, dict) or "id" not in answer:
            raise UnexpectedAnswer("the server began an upload without saying which")
        return str(answer["id"])

    def _give_up_others(self, headers: Mapping[str, str]) -> None:
        while self._unfinished:
            with suppress(KeyError):  # another thread was quicker
                _, (upload_id, _) = self._unfinished.popitem()
                _give_up(self._transport, upload_id, headers)


class _Upload:
    """One upload. It is itself the body of a request, with the next part as its content."""

    def __init__(
        self,
        transport: Transport,
        upload_id: str,
        body: RequestBody,
        headers: Mapping[str, str],
        deadline: Deadline,
        *,
        is_unsure: bool,
    ) -> None:
        self._transport = transport
        self._id = upload_id
        self._path = f"{UPLOADS}{upload_id}/"
        self._body = body
        self._who = headers
        self._deadline = deadline
        self._offset = 0
        self._is_unsure = is_unsure

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
        """Send all parts that have not arrived."""
        while self._offset < self._body.size_bytes:
            try:
                self._offset = self._transport.exchange(
                    "PATCH",
                    self._path,
                    self._next_headers,
                    _offset_of,
                    body=self,
                    deadline=self._deadline,
                )
            except Conflict as conflict:
                # A part of an attempt that seemed to be lost has arrived after all.
                if conflict.code != "wrong_offset" or self._deadline.remaining_s() <= 0:
                    raise
                self._transport.sleep(PAUSE_S)
                continue
            self._is_unsure = False
            self._deadline.renew()

    def finish(self, key: str) -> Answer:
        """Turn the complete upload into an update."""
        return self._transport.call(
            "POST",
            UPDATES,
            params={"upload": self._id},
            headers=self._who,
            idempotency_key=key,
            deadline=self._deadline,
            silence_s=SILENCE_TIMEOUT_S + self._body.size_bytes / LOOKS_AT_BYTES_PER_S,
        )

    def _next_headers(self) -> Mapping[str, str]:
        # Called before each attempt: after a failed one it is unknown how much has arrived.
        if self._is_unsure:
            self._offset = self._transport.exchange(
                "HEAD",
                self._path,
                lambda: {**self._who, **TUS},
                _offset_of,
                deadline=self._deadline,
            )
            logger.info("upload_resumed upload=%s offset=%d", self._id, self._offset)
        self._is_unsure = True
        return {**self._who, **TUS, **self.headers}


def _give_up(transport: Transport, upload_id: str, headers: Mapping[str, str]) -> None:
    """Tell the server to drop an upload."""
    with suppress(APIException):
        transport.exchange(
            "DELETE", f"{UPLOADS}{upload_id}/", lambda: {**headers, **TUS}, _nothing_of, timeout_s=1.0
        )


def _offset_of(response: httpx.Response, deadline: Deadline) -> int:
    _nothing_of(response, deadline)
    offset = response.headers.get("upload-offset", "")
    if not offset.isdecimal():
        raise UnexpectedAnswer(f"Upload-Offset must be a number, got {offset!r}")
    return int(offset)


def _nothing_of(response: httpx.Response, deadline: Deadline) -> Any:
    for _ in pieces_of(response, deadline):
        pass
