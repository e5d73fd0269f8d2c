"""Sending of updates: at once or in parts, each kept on disk until the server has confirmed it.

Metrics travel in a header, or, beyond what proxies let through there, in the JSON body that begins an upload. Only a
server that is too old for both gets them in the query, which stands in the access log of every proxy.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from urllib.parse import quote

from fma_connect.encoding import RequestBody
from fma_connect.exceptions import (
    FMAConnectError,
    InvalidArgument,
    Refused,
    ServerFailed,
    TooManyRequests,
)
from fma_connect.outbox import Facts, Kept, Outbox
from fma_connect.outgoing_json import dumps
from fma_connect.retry import RetryPolicy
from fma_connect.transport import Answer, Transport
from fma_connect.uploads import Uploads

__all__ = ["Updates"]

logger = logging.getLogger("fma_connect")

UPDATES = "api/v1/model_updates/"
METRICS = "FMA-Metrics"
# Common proxies take 8 KiB of a header, or of all headers together.
MOST_BYTES_IN_HEADER = 4 * 1024
# For servers that know neither the header nor uploads.
MOST_BYTES_IN_QUERY = 32 * 1024
# To catch up may take this share of the time that a call has left, and pauses after a failure.
MOST_OF_A_PROMISE = 0.25
LEAST_PAUSE_S = 5.0
PAUSES = RetryPolicy(first_delay_s=5.0, max_delay_s=300.0)


class Updates:
    """Sends the updates of one client.

    who: gives the headers that identify the client, and registers it when necessary.
    outbox: gives the place for updates that are not confirmed; None keeps none.
    signature: gives the headers that sign an update; none for a client without a key.
    add_key: adds the key once more, after a refused signature; False when that cannot help.
    """

    def __init__(
        self,
        transport: Transport,
        who: Callable[[], Mapping[str, str]],
        outbox: Callable[[], Outbox | None],
        signature: Callable[[RequestBody, Facts], Mapping[str, str]],
        add_key: Callable[[], bool],
    ) -> None:
        self._transport = transport
        self._who = who
        self._outbox = outbox
        self._signature = signature
        self._add_key = add_key
        self._uploads = Uploads(transport, becomes=UPDATES)
        self._knows_header = True
        # The digest and the facts of an update that may have arrived: it may not have got into the outbox.
        self._unsent: tuple[str, Facts] | None = None
        self._failures = 0
        self._catch_up_at = -math.inf

    def push(self, body: RequestBody, facts: Facts, *, least_bytes: int) -> Answer:
        """Keep an update, send it, and forget it when the server has answered.

        least_bytes: bodies from this size on are sent in parts. Raises as Transport.call; after an error that may pass,
        the update stays kept.
        """
        outbox = self._outbox()
        begun = None if outbox is None else outbox.begun(body, facts)
        if begun is None:
            begun = self._begun_here(body, facts) or facts
            if outbox is not None:
                outbox.keep(body, begun)
        with nullcontext() if outbox is None else outbox.held():
            return self._finish(body, begun, least_bytes, outbox)

    def send_kept(
        self, *, least_bytes: int, next_one: tuple[RequestBody, Facts] | None = None
    ) -> Answer | None:
        """Send the kept update; None when there is none, or when somebody else is sending it. Raises as `push`.

        next_one: what is pushed next; a kept update that is the same one is left to that.
        """
        outbox = self._outbox()
        kept = None if outbox is None else outbox.take(unless=next_one)
        if outbox is None or kept is None:
            return None
        with kept:
            answer = self._finish(kept, kept.facts, least_bytes, outbox)
        logger.info("kept_update_sent file=%s", outbox.path)
        return answer

    def catch_up(self, *, least_bytes: int, next_one: tuple[RequestBody, Facts] | None = None) -> None:
        """Send the kept update before another call. A failure is only logged: if it matters, that call fails, too.

        It takes a share of the call's time. After a failure, the next calls leave it for a while, but not a push (with
        next_one), whose update takes the place of the kept one.
        """
        if next_one is None and self._transport.clock() < self._catch_up_at:
            return
        try:
            with self._transport.within_share(MOST_OF_A_PROMISE), self._transport.without_retries():
                self.send_kept(least_bytes=least_bytes, next_one=next_one)
        except (FMAConnectError, OSError) as error:
            logger.warning("kept_update_not_sent cause=%s", error)
            self._failures += 1
            pause_s = LEAST_PAUSE_S + PAUSES.delay_s(self._failures, self._transport.rng)
            self._catch_up_at = self._transport.clock() + pause_s
        else:
            self._failures = 0

    def _begun_here(self, body: RequestBody, facts: Facts) -> Facts | None:
        """The facts, with the key, of an attempt of this object to send the same update; None without one."""
        if self._unsent is None:
            return None
        digest, before = self._unsent
        is_same = digest == body.headers["Content-Digest"] and before.is_same_update(facts)
        return before if is_same and before.is_remembered() else None

    def _finish(self, body: RequestBody, facts: Facts, least_bytes: int, outbox: Outbox | None) -> Answer:
        try:
            # Outside the other `try`: a refused registration says nothing about the update.
            who = self._who()
        except FMAConnectError as error:
            _note_kept(error, facts, outbox)
            raise
        try:
            try:
                answer = self._deliver(body, facts, least_bytes, who)
            except Refused as refused:
                # A database that was restored from a backup may know the client, and not its key.
                if refused.code != "invalid_signature" or not self._add_key():
                    raise
                answer = self._deliver(body, facts, least_bytes, who)
            answer.json()  # a page is no confirmation: a network that wants a login answers 200, too
        except FMAConnectError as error:
            if _is_final(error):
                self._forget(body, facts, outbox)
            else:
                self._unsent = (body.headers["Content-Digest"], facts)
                _note_kept(error, facts, outbox)
            raise
        self._forget(body, facts, outbox)
        self._notice_lost_metrics(answer, facts)
        return answer

    def _forget(self, body: RequestBody, facts: Facts, outbox: Outbox | None) -> None:
        if self._unsent is not None and self._unsent[1].key == facts.key:
            self._unsent = None
        if isinstance(body, Kept):
            body.close()
        if outbox is not None:
            outbox.remove(facts)

    def _deliver(self, body: RequestBody, facts: Facts, least_bytes: int, who: Mapping[str, str]) -> Answer:
        metrics = dumps(facts.metrics) if facts.metrics else ""
        signed = self._signature(body, facts)
        if body.size_bytes >= least_bytes or len(metrics) > MOST_BYTES_IN_HEADER:
            answer = self._uploads.push(body, facts=facts, headers=who, signature=signed)
            if answer is not None:
                return answer
        headers, params = {**who, **signed}, dict[str, str | int](facts.params)
        if metrics and self._uploads.are_known and self._knows_header:
            headers[METRICS] = metrics
        elif metrics:
            params["metrics"] = _in_a_query(metrics)
        return self._transport.call(
            "POST", UPDATES, params=params, headers=headers, body=body, idempotency_key=facts.key
        )

    def _notice_lost_metrics(self, answer: Answer, facts: Facts) -> None:
        if not facts.metrics or not self._knows_header:
            return
        stored = answer.json()
        if isinstance(stored, dict) and "metrics" in stored and not stored["metrics"]:
            logger.warning(
                "metrics_lost update=%s: the server is too old for %s; the next metrics go in the query",
                stored.get("id"), METRICS,
            )  # fmt: skip
            self._knows_header = False


def _is_final(error: FMAConnectError) -> bool:
    """Whether the server will never take the update as it is. After other errors it still may."""
    if isinstance(error, TooManyRequests | ServerFailed):
        return False
    # What a proxy says is no word of the server.
    return isinstance(error, InvalidArgument) or (isinstance(error, Refused) and error.is_of_the_server)


def _note_kept(error: FMAConnectError, facts: Facts, outbox: Outbox | None) -> None:
    if outbox is not None and outbox.has(facts):
        logger.warning("update_kept file=%s cause=%s", outbox.path, error)
        error.add_note(f"The update is kept in {outbox.path}; the next calls of this client send it.")


def _in_a_query(metrics: str) -> str:
    size = len(quote(metrics))
    if size > MOST_BYTES_IN_QUERY:
        raise InvalidArgument(
            f"this server takes metrics in the URL only, which may have {MOST_BYTES_IN_QUERY} bytes; these take {size}"
        )
    return metrics
