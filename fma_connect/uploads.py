"""Uploads of large weights in parts: after a broken connection, only the part that had not arrived is sent again.

The server's `uploads/` speaks tus 1.0.0 (https://tus.io/protocols/resumable-upload): POST begins an upload, PATCH
continues it, and after a failure HEAD tells how much has arrived.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, TypeVar

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
from fma_connect.outbox import Facts
from fma_connect.transport import SILENCE_TIMEOUT_S, Answer, Deadline, Transport, pieces_of

__all__ = ["LEAST_BYTES", "Uploads"]

logger = logging.getLogger("fma_connect")

UPLOADS = "api/v1/uploads/"
TUS = {"Tus-Resumable": "1.0.0"}
# Smaller bodies are sent again as a whole.
LEAST_BYTES = 8 * 2**20
# One request for each part: a proxy that buffers whole requests loses a request that is cut off.
PART_BYTES = 8 * 2**20
MOST_BEGINNINGS = 3
PAUSE_S = 0.2
# The answer of a machine that has no parts of an upload because another one has; one to HEAD has no code of its own.
ELSEWHERE = frozenset({"upload_elsewhere", "http_409"})
MOST_MACHINES = 8
# The answers to a key whose upload was dropped, or was announced otherwise by an earlier version.
USED_UP = ("idempotency_key_expired", "idempotency_key_reused")
MOST_KEYS = 8
# The lowest speed at which the server checks a complete body before it answers.
LOOKS_AT_BYTES_PER_S = 8 * 2**20


Given = TypeVar("Given")


class Uploads:
    """The uploads of one caller. An upload that ran out of time continues when the same weights are pushed again.

    becomes: the path of the POST that makes something of a complete upload.
    """

    def __init__(self, transport: Transport, *, becomes: str) -> None:
        self._transport = transport
        self._becomes = becomes
        self.are_known = True
        # By the idempotency key of what it becomes.
        self._unfinished: dict[str, str] = {}

    def push(
        self,
        body: RequestBody,
        *,
        facts: Facts,
        headers: Mapping[str, str],
        signature: Mapping[str, str] = MappingProxyType({}),
    ) -> Answer | None:
        """Push a body in parts and return the answer to what it becomes; None when the server has no uploads.

        facts: those with which it begins. headers: the caller's credential. signature: the header that signs the
        update. A push with the same key continues an upload, also after a restart of the caller.
        Raises as Transport.call.
        """
        if not self.are_known:
            return None
        deadline = self._transport.deadline()
        upload_id = self._unfinished.pop(facts.key, None)
        self._give_up_others(headers)
        offset: int | None = None
        for attempt in range(1, MOST_BEGINNINGS + 1):
            if upload_id is None:
                begun = self._begin(body, facts, attempt, {**headers, **signature}, deadline)
                if begun is None:
                    return None
                upload_id, offset = begun
                if offset:
                    logger.info("upload_resumed upload=%s offset=%d", upload_id, offset)
            upload = _Upload(self._transport, upload_id, body, headers, deadline, offset=offset)
            try:
                upload.send()
                return upload.finish(self._becomes, facts.key)
            except (ConnectionFailed, TooManyRequests, ServerFailed):
                self._unfinished[facts.key] = upload_id
                raise
            except Refused as refused:
                if not _is_lost(refused):
                    self._keep_or_give_up(facts.key, upload_id, refused, headers)
                    raise
                if attempt == MOST_BEGINNINGS:
                    raise
                logger.warning("upload_lost cause=%s", refused)
                upload_id = offset = None
        raise AssertionError("unreachable")

    def _keep_or_give_up(
        self, key: str, upload_id: str, refused: Refused, headers: Mapping[str, str]
    ) -> None:
        if refused.is_of_the_server:
            _give_up(self._transport, upload_id, headers)
        else:
            self._unfinished[key] = upload_id

    def _begin(
        self, body: RequestBody, facts: Facts, attempt: int, headers: Mapping[str, str], deadline: Deadline
    ) -> tuple[str, int] | None:
        """Begin an upload, or find the one that was begun with this key; its id, and how much of it has arrived."""
        sent = {
            **headers,
            **TUS,
            "Upload-Length": str(body.size_bytes),
            "Repr-Digest": body.headers["Content-Digest"],
        }
        if "Content-Encoding" in body.headers:
            sent["Content-Encoding"] = body.headers["Content-Encoding"]
        try:
            answer = self._post(sent, facts, attempt, deadline)
        except NotFound:
            self.are_known = False
            return None
        if not isinstance(answer, dict) or "id" not in answer:
            raise UnexpectedAnswer("the server began an upload without saying which")
        offset = answer.get("offset", 0)
        return str(answer["id"]), offset if isinstance(offset, int) and 0 <= offset <= body.size_bytes else 0

    def _post(self, headers: Mapping[str, str], facts: Facts, attempt: int, deadline: Deadline) -> Any:
        def post(key: str) -> Any:
            return self._transport.call(
                "POST",
                UPLOADS,
                params=facts.params,
                headers=headers,
                json_body={"metrics": facts.metrics} if facts.metrics else None,
                idempotency_key=key,
                deadline=deadline,
            ).json()

        # In a fixed order, so that another process finds what this one begins.
        for number in range(attempt, attempt + MOST_KEYS):
            try:
                return post(f"{facts.key}/{number}")
            except NotFound:
                raise
            except Refused as refused:
                if not _is_lost(refused) and refused.code not in USED_UP:
                    raise
        return post(str(uuid.uuid4()))

    def _give_up_others(self, headers: Mapping[str, str]) -> None:
        while self._unfinished:
            with suppress(KeyError):  # another thread was quicker
                _, upload_id = self._unfinished.popitem()
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
        offset: int | None,
    ) -> None:
        """offset: how much has arrived; None asks the server."""
        self._transport = transport
        self._id = upload_id
        self._path = f"{UPLOADS}{upload_id}/"
        self._body = body
        self._who = headers
        self._deadline = deadline
        self._offset = offset or 0
        self._is_unsure = offset is None

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
                self._offset = self._on_its_machine(self._send_part)
            except Conflict as conflict:
                # A part of an attempt that seemed to be lost has arrived after all.
                if conflict.code != "wrong_offset" or self._deadline.remaining_s() <= 0:
                    raise
                self._transport.sleep(PAUSE_S)
                continue
            self._is_unsure = False
            self._deadline.renew()

    def finish(self, becomes: str, key: str) -> Answer:
        """Turn the complete upload into what it becomes."""
        return self._on_its_machine(
            lambda: self._transport.call(
                "POST",
                becomes,
                params={"upload": self._id},
                headers=self._who,
                idempotency_key=key,
                deadline=self._deadline,
                silence_s=SILENCE_TIMEOUT_S + self._body.size_bytes / LOOKS_AT_BYTES_PER_S,
            )
        )

    def _send_part(self) -> int:
        try:
            return self._transport.exchange(
                "PATCH",
                self._path,
                self._next_headers,
                _offset_of,
                body=self,
                deadline=self._deadline,
            )
        except Conflict as conflict:
            if conflict.code == "upload_elsewhere":
                # It took nothing. A HEAD before the next attempt would keep step with a balancer of two machines.
                self._is_unsure = False
            raise

    def _on_its_machine(self, ask: Callable[[], Given]) -> Given:
        """Ask again while a machine answers that another one has the parts: a balancer may find that."""
        for _ in range(MOST_MACHINES - 1):
            try:
                return ask()
            except Conflict as conflict:
                if conflict.code not in ELSEWHERE or self._deadline.remaining_s() <= 0:
                    raise
            self._transport.sleep(PAUSE_S)
        return ask()

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


def _is_lost(refused: Refused) -> bool:
    """Whether the server has an upload no more: it has expired, others needed the space, or its machine is gone."""
    return isinstance(refused, NotFound) or refused.code in ELSEWHERE


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
