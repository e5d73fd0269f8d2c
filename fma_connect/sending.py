"""Updates on their way to the server: kept until it has confirmed them, at once or in parts.

Metrics never travel in a query, which stands in the access log of every proxy: they are in a header, or, beyond what
proxies let through there, in the JSON body that begins an upload.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from urllib.parse import quote

from fma_connect.encoding import RequestBody
from fma_connect.exceptions import (
    ConnectionFailed,
    InvalidArgument,
    Refused,
    ServerFailed,
    TooManyRequests,
    UnexpectedAnswer,
)
from fma_connect.outbox import Facts, Outbox
from fma_connect.outgoing_json import dumps
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
# After these the server may still take the update, as it is.
PASSING = (ConnectionFailed, TooManyRequests, ServerFailed, UnexpectedAnswer)


class Updates:
    """Sends the updates of one client.

    who: gives the headers that identify the client, and registers it when necessary.
    outbox: gives the place for updates that are not confirmed; None keeps none.
    """

    def __init__(
        self,
        transport: Transport,
        who: Callable[[], Mapping[str, str]],
        outbox: Callable[[], Outbox | None],
    ) -> None:
        self._transport = transport
        self._who = who
        self._outbox = outbox
        self._uploads = Uploads(transport)
        self._knows_header = True
        # Without an outbox: the digest and the facts of an update that may have arrived.
        self._unsent: tuple[str, Facts] | None = None

    def push(self, body: RequestBody, facts: Facts, *, least_bytes: int) -> Answer:
        """Keep an update, send it, and forget it when the server has answered.

        least_bytes: bodies from this size on are sent in parts. Raises as Transport.call; after an error that may pass,
        the update stays kept.
        """
        facts = self._begun_before(body, facts)
        outbox = self._outbox()
        if outbox is None:
            return self._finish(body, facts, least_bytes, outbox)
        outbox.keep(body, facts)
        with outbox.held():
            return self._finish(body, facts, least_bytes, outbox)

    def send_kept(
        self, *, least_bytes: int, next_one: tuple[RequestBody, Facts] | None = None
    ) -> Answer | None:
        """Send the kept update; None when there is none, or when somebody else is sending it. Raises as `push`.

        next_one: what is pushed next; a kept update that is the same one is left to that.
        """
        outbox = self._outbox()
        if outbox is None or not outbox.path.exists():
            return None
        with outbox.held() as is_mine:
            kept = outbox.load() if is_mine else None
            if kept is None or (next_one is not None and _is_same(kept.headers, kept.facts, *next_one)):
                return None
            answer = self._finish(kept, kept.facts, least_bytes, outbox)
            logger.info("kept_update_sent file=%s", outbox.path)
            return answer

    def _begun_before(self, body: RequestBody, facts: Facts) -> Facts:
        """The facts with the key of an earlier attempt to send the same update."""
        outbox = self._outbox()
        kept = None if outbox is None else outbox.load()
        if kept is not None:
            return kept.facts if _is_same(kept.headers, kept.facts, body, facts) else facts
        if self._unsent is not None:
            digest, before = self._unsent
            return before if _is_same({"Content-Digest": digest}, before, body, facts) else facts
        return facts

    def _finish(self, body: RequestBody, facts: Facts, least_bytes: int, outbox: Outbox | None) -> Answer:
        try:
            answer = self._deliver(body, facts, least_bytes)
        except PASSING as error:
            if outbox is None:
                self._unsent = (body.headers["Content-Digest"], facts)
            elif outbox.path.exists():
                logger.warning("update_kept file=%s cause=%s", outbox.path, error)
                error.add_note(f"The update is kept in {outbox.path}; the next calls of this client send it.")
            raise
        except Refused:
            self._forget(facts, outbox)
            raise
        self._forget(facts, outbox)
        self._notice_lost_metrics(answer, facts)
        return answer

    def _forget(self, facts: Facts, outbox: Outbox | None) -> None:
        self._unsent = None
        if outbox is not None:
            outbox.remove(facts)

    def _deliver(self, body: RequestBody, facts: Facts, least_bytes: int) -> Answer:
        metrics = dumps(facts.metrics) if facts.metrics else ""
        if body.size_bytes >= least_bytes or len(metrics) > MOST_BYTES_IN_HEADER:
            answer = self._uploads.push(body, facts=facts, headers=self._who())
            if answer is not None:
                return answer
        headers, params = dict(self._who()), dict[str, str | int](facts.params)
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


def _is_same(headers: Mapping[str, str], facts: Facts, body: RequestBody, others: Facts) -> bool:
    return headers["Content-Digest"] == body.headers["Content-Digest"] and facts.is_same_update(others)


def _in_a_query(metrics: str) -> str:
    size = len(quote(metrics))
    if size > MOST_BYTES_IN_QUERY:
        raise InvalidArgument(
            f"this server takes metrics in the URL only, which may have {MOST_BYTES_IN_QUERY} bytes; these take {size}"
        )
    return metrics
