"""Calls to the server: each is sent, retried while that can help, and turned into a value or a typed error.

A POST has the same Idempotency-Key in every attempt, so that a lost answer does not lead to a second object. Only one
kind of redirect is followed (redirect.py): a credential is sent only to the address that the caller named.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import ssl
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import httpx

from fma_connect.digest import expected_sha256
from fma_connect.encoding import BytesBody, RequestBody
from fma_connect.exceptions import ConnectionFailed, InvalidArgument, Refused, UnexpectedAnswer, refusal
from fma_connect.outgoing_json import dumps, to_json
from fma_connect.proxies import EnvironmentProxies, is_this_machine
from fma_connect.redirect import headers_for_store, speak_for_server, store_of, why_unusable
from fma_connect.retry import RETRYABLE_STATUSES, RetryPolicy, retry_after_s
from fma_connect.version import __version__
from fma_connect.wait_limit import WaitCut, WaitLimit

__all__ = ["Answer", "BrokenTransfer", "DamagedTransfer", "Deadline", "Transport", "base_url", "pieces_of"]

logger = logging.getLogger("fma_connect")

CONNECT_TIMEOUT_S = 10.0
SILENCE_TIMEOUT_S = 30.0
# A transfer at less than this counts as silence.
SLOWEST_BYTES_PER_S = 1000.0
# As often as this, bytes were not changed by accident.
MOST_DAMAGED = 3
# An answer that the server gives at the end of a long wait needs this time to arrive.
LATE_ANSWER_S = 1.0
# Who gives no time asks once.
ONE_CALL_S = 1.0

Params = Mapping[str, str | int]
T = TypeVar("T")


class BrokenTransfer(Exception):
    """An answer that arrived damaged, which another attempt may repair."""


class DamagedTransfer(BrokenTransfer):
    """Bytes that do not have the hash that the server gives for them."""


@dataclass(frozen=True)
class Answer:
    """An answer of 2xx or 304, read to its end."""

    status: int
    headers: httpx.Headers = field(repr=False)
    body: bytes | bytearray = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the body, in hex, to compare with a digest or an ETag."""
        return hashlib.sha256(self.body).hexdigest()

    def json(self) -> Any:
        """Parse the body as JSON. Raises UnexpectedAnswer."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            kind = self.headers.get("content-type", "no content type")
            raise UnexpectedAnswer(
                f"the server answered {self.status} with {kind}; JSON was expected"
            ) from error


class Deadline:
    """The time limit of a call.

    limit_s: the seconds from now. counts_transfers: whether they include the time in which bytes move. Without it the
        limit is about silence: a large model on a slow line takes as long as it takes.
    at_latest: a moment that also ends the call: the promise of a caller.
    """

    def __init__(
        self,
        limit_s: float,
        clock: Callable[[], float],
        *,
        counts_transfers: bool = True,
        at_latest: float | None = None,
    ) -> None:
        self.limit_s = limit_s
        self.at_latest = at_latest
        self._clock = clock
        self._counts_transfers = counts_transfers
        self._moved_at = clock()
        self._expires_at = self._moved_at + limit_s

    def remaining_s(self) -> float:
        """The seconds that are left; negative after the limit."""
        expires_at = self._expires_at if self.at_latest is None else min(self._expires_at, self.at_latest)
        return expires_at - self._clock()

    def begin(self) -> None:
        """Count the time of a transfer from now on."""
        self._moved_at = self._clock()

    def moved(self, size_bytes: int) -> None:
        """Leave out the time in which these bytes moved, unless they were slower than SLOWEST_BYTES_PER_S."""
        now = self._clock()
        if not self._counts_transfers:
            self._expires_at += min(now - self._moved_at, size_bytes / SLOWEST_BYTES_PER_S)
        self._moved_at = now

    def renew(self) -> None:
        """Start the limit again, after a part that need not be sent again, unless it is of the whole transfer."""
        if not self._counts_transfers:
            self._expires_at = self._clock() + self.limit_s


def base_url(url: str) -> str:
    """The server's URL with one slash at its end. Raises InvalidArgument for another scheme or a password."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise InvalidArgument(f"url cannot be read: {error}") from error
    if parsed.userinfo:
        raise InvalidArgument("url must not carry a user name or password: addresses end up in logs")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidArgument(f"url must look like https://host[:port]/, got {url!r}")
    if parsed.query or parsed.fragment:
        raise InvalidArgument(f"url must end with a path, got {url!r}")
    return str(parsed).rstrip("/") + "/"


class Transport:
    """Calls below one server address.

    timeout_s: the limit of one call, pauses and all attempts included; the time in which bytes move does not count.
    verify: as for httpx: True, False, or an ssl.SSLContext (for a private certificate authority).
    http: another httpx transport, for tests. rng, sleep, clock: for tests.
    Threads may share it. Processes may share it only without keep_alive, when every call has its own connection.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        retry: RetryPolicy,
        verify: bool | ssl.SSLContext = True,
        http: httpx.BaseTransport | None = None,
        keep_alive: bool = True,
        rng: random.Random | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if timeout_s <= 0:
            raise InvalidArgument(f"timeout_s must be positive; got {timeout_s}")
        self.url = base_url(url)
        self.timeout_s = timeout_s
        self.sleep = sleep
        self.clock = clock
        self.rng = rng or random.SystemRandom()
        self.retry = retry
        self.waits = WaitLimit(clock)
        self._promise = threading.local()
        # Reading the system's certificates takes 0.1 s and more, and http does not need them.
        needs_tls = self.url.startswith("https:")
        self._proxies = None
        if http is None:
            limits = httpx.Limits(max_keepalive_connections=16 if keep_alive else 0)
            http = self._proxies = EnvironmentProxies(verify=verify if needs_tls else False, limits=limits)
        self._http = httpx.Client(
            transport=http,
            trust_env=False,
            follow_redirects=False,
            headers={"User-Agent": f"fma-connect/{__version__}", "Accept": "application/json"},
        )
        self.close = weakref.finalize(self, self._http.close)
        _warn_of_clear_text(httpx.URL(self.url))

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        json_body: Any = None,
        body: RequestBody | bytes | None = None,
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
        deadline: Deadline | None = None,
        silence_s: float = SILENCE_TIMEOUT_S,
        wait_s: float | None = None,
        check: Callable[[Answer], None] | None = None,
    ) -> Answer:
        """Make one call and return its answer of 2xx or 304; other answers raise an error.

        json_body or body: the content to send; it is sent with its Content-Digest.
        timeout_s: the limit of the whole call, transfers included; None: that of the transport.
        deadline: the limit of several calls together, in place of timeout_s.
        silence_s: the time without any data from the server after which an attempt has failed.
        wait_s: the most seconds that the server may hold its answer back, sent as `wait`; it is shortened to what gets
            through and to the caller's promise. There is one attempt, because the caller asks again (waiting.py). An
            answer that has begun is read to its end, after the promise, too. Raises WaitCut.
        check: raises BrokenTransfer for an answer that must be fetched again.
        """
        sent = dict(headers or {})
        if json_body is not None:
            body = BytesBody(dumps(json_body).encode(), "application/json")
        elif isinstance(body, bytes):
            body = BytesBody(body, "application/octet-stream")
        if body is not None:
            sent |= body.headers
        if method == "POST":
            sent["Idempotency-Key"] = idempotency_key or str(uuid.uuid4())

        def read(response: httpx.Response, deadline: Deadline) -> Answer:
            # One growing buffer: joining pieces would need the memory of a large model twice.
            content = bytearray()
            for piece in pieces_of(response, deadline):
                content += piece
            answer = Answer(response.status_code, response.headers, content)
            _check_digest(answer)
            if check is not None:
                check(answer)
            return answer

        return self.exchange(
            method,
            path,
            lambda: sent,
            read,
            params=params,
            body=body,
            timeout_s=timeout_s,
            deadline=deadline,
            silence_s=silence_s,
            wait_s=wait_s,
        )

    def deadline(self, timeout_s: float | None = None) -> Deadline:
        """The time limit of a call that begins now: timeout_s for the whole of it, or the limit of the transport."""
        return Deadline(
            self.timeout_s if timeout_s is None else timeout_s,
            self.clock,
            counts_transfers=timeout_s is not None,
            at_latest=self._promised(),
        )

    @contextmanager
    def within(self, timeout_s: float | None) -> Iterator[None]:
        """Promise that all calls of this thread in the `with` end after timeout_s; None promises nothing."""
        with self.until(None if timeout_s is None else self.clock() + max(timeout_s, ONE_CALL_S)):
            yield

    @contextmanager
    def until(self, ends_at: float | None) -> Iterator[None]:
        """Promise that all calls of this thread in the `with` end at this moment; None promises nothing."""
        outer = self._promised()
        if ends_at is not None:
            self._promise.ends_at = ends_at if outer is None else min(outer, ends_at)
        try:
            yield
        finally:
            self._promise.ends_at = outer

    @contextmanager
    def within_share(self, share: float) -> Iterator[None]:
        """Promise that the calls of this thread in the `with` take at most this share of the time that it has left."""
        promised_s = self.promised_s()
        with self.within(None if promised_s is None else promised_s * share):
            yield

    @contextmanager
    def without_retries(self) -> Iterator[None]:
        """Send each call of this thread in the `with` once."""
        outer, self._promise.is_once = getattr(self._promise, "is_once", False), True
        try:
            yield
        finally:
            self._promise.is_once = outer

    def promised_s(self) -> float | None:
        """The seconds that are left of the promise that this thread has given; None without one."""
        ends_at = self._promised()
        return None if ends_at is None else ends_at - self.clock()

    def _promised(self) -> float | None:
        ends_at: float | None = getattr(self._promise, "ends_at", None)
        return ends_at

    def exchange(
        self,
        method: str,
        path: str,
        headers: Callable[[], Mapping[str, str]],
        read: Callable[[httpx.Response, Deadline], T],
        *,
        params: Params | None = None,
        body: RequestBody | None = None,
        timeout_s: float | None = None,
        deadline: Deadline | None = None,
        silence_s: float = SILENCE_TIMEOUT_S,
        wait_s: float | None = None,
    ) -> T:
        """Make one call and return the result of `read` on the streamed answer; each attempt calls `headers`.

        The other arguments are those of `call`.
        """
        held_s: int | None = None
        if wait_s is not None:
            promised_s = self.promised_s()
            held_s = self.waits.of(wait_s if promised_s is None else min(wait_s, promised_s))
            params = {**(params or {}), "wait": held_s}
            silence_s += held_s
            deadline = Deadline(
                self.timeout_s + held_s, self.clock, counts_transfers=False, at_latest=self._promised()
            )
        deadline = deadline or self.deadline(timeout_s)
        limit_s = min(deadline.limit_s, max(self.promised_s() or deadline.limit_s, 0.0))
        attempt = 0
        damaged = 0
        while True:
            attempt += 1
            failure: Refused | Exception
            try:
                return self._attempt(method, path, headers(), read, params, body, deadline, silence_s, held_s)
            except Refused as refused:
                if not refused.is_of_the_server:
                    refused.error_message += self._way()
                if refused.status not in RETRYABLE_STATUSES:
                    raise
                failure = refused
            except (httpx.TransportError, httpx.DecodingError, BrokenTransfer) as error:
                _raise_if_hopeless(error, self.url)
                damaged += isinstance(error, DamagedTransfer)
                if damaged >= MOST_DAMAGED:
                    raise UnexpectedAnswer(
                        f"{method} {self.url}{path} answered {damaged} times, and each time {error}: the stored file, "
                        "or something on the way, changes the bytes"
                    ) from error
                failure = error
            delay_s = self.retry.delay_s(attempt, self.rng)
            if isinstance(failure, Refused) and failure.retry_after_s is not None:
                delay_s = max(delay_s, failure.retry_after_s)
            is_once = held_s is not None or getattr(self._promise, "is_once", False)
            max_attempts = 1 if is_once else self.retry.max_attempts
            out_of_attempts = max_attempts is not None and attempt >= max_attempts
            if out_of_attempts or delay_s >= deadline.remaining_s():
                call = f"{method} {self.url}{path}{self._way()}"
                raise _given_up(failure, call, attempt, limit_s) from failure
            logger.warning(
                "call_retried method=%s path=%s attempt=%d delay_s=%.2f cause=%s",
                method, path, attempt, delay_s, _cause(failure),
            )  # fmt: skip
            self.sleep(delay_s)

    def _way(self) -> str:
        """The proxy on the way, for messages."""
        proxy = None if self._proxies is None else self._proxies.shown_for(httpx.URL(self.url))
        return "" if proxy is None else f" through the proxy {proxy} (of the environment)"

    def _attempt(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        read: Callable[[httpx.Response, Deadline], T],
        params: Params | None,
        body: RequestBody | None,
        deadline: Deadline,
        silence_s: float,
        held_s: int | None,
    ) -> T:
        late_s = 0.0 if held_s is None else LATE_ANSWER_S
        timeouts: dict[str, float] = {}

        def renew_timeouts(*_: object) -> None:
            """Give the next step of the request the time that is left."""
            left_s = max(deadline.remaining_s(), 0.001)
            timeouts["connect"] = min(CONNECT_TIMEOUT_S, left_s)
            timeouts["write"] = timeouts["pool"] = min(silence_s, left_s)
            timeouts["read"] = min(silence_s, left_s + late_s)

        renew_timeouts()
        deadline.begin()
        sent = dict(headers)
        content: Iterator[bytes] | None = None
        if body is not None:
            # A stream with a known length is neither copied nor sent in chunks.
            content, sent["Content-Length"] = _pieces(body, deadline), str(body.size_bytes)
        query = {name: to_json(value, where=name) for name, value in (params or {}).items()}
        # httpx reads the timeouts at the beginning of each step, and calls `trace` before it: the answer to a long body
        # has only the time that the body has left.
        extensions = {"timeout": timeouts, "trace": renew_timeouts}
        try:
            request = self._http.build_request(
                method,
                self.url + path,
                params=query or None,
                headers=sent,
                content=content,
                extensions=extensions,
            )
        except (TypeError, UnicodeError) as error:
            # Without the cause: its text may quote a credential.
            raise InvalidArgument(
                f"the headers of {method} {path} must be ASCII text: {type(error).__name__}"
            ) from None
        with self._learning(held_s):
            response = self._http.send(request, stream=True)
            store = store_of(response)
            if store is None:
                _raise_if_refused(response, deadline)
        if store is not None:
            response = self._from_store(store, sent, response, extensions)
        if held_s is not None:
            deadline.at_latest = None
            silence_s, late_s = SILENCE_TIMEOUT_S, 0.0
        deadline.begin()
        try:
            return read(response, deadline)
        finally:
            response.close()

    @contextmanager
    def _learning(self, held_s: int | None) -> Iterator[None]:
        """Raise WaitCut in place of the error of a wait that something on the way has cut."""
        sent_at = self.clock()
        try:
            yield
        except (Refused, httpx.TransportError) as error:
            elapsed_s = self.clock() - sent_at
            if held_s is None or not self.waits.learn(error, wait_s=held_s, elapsed_s=elapsed_s):
                raise
            logger.info("wait_cut waited_s=%.1f cause=%s", elapsed_s, _cause(error))
            raise WaitCut from error

    def _from_store(
        self, store: httpx.URL, sent: Mapping[str, str], redirect: httpx.Response, extensions: dict[str, Any]
    ) -> httpx.Response:
        redirect.close()
        request = self._http.build_request(
            "GET", store, headers=headers_for_store(sent, redirect), extensions=extensions
        )
        response = self._http.send(request, stream=True)
        why = why_unusable(response)
        if why is not None:
            response.close()
            # The URL may have expired, or the object may have moved: the server gives the current URL.
            raise BrokenTransfer(f"the store at {store.host} {why}")
        speak_for_server(response, redirect)
        return response


def _pieces(body: RequestBody, deadline: Deadline) -> Iterator[bytes]:
    for piece in body.pieces():
        if deadline.remaining_s() <= 0:
            raise httpx.WriteTimeout("the time limit of the call passed while sending")
        yield piece  # type: ignore[misc]  # h11 takes whatever has a buffer
        deadline.moved(len(piece))


def pieces_of(response: httpx.Response, deadline: Deadline) -> Iterator[bytes]:
    """The body of an answer as it arrives. Raises ReadTimeout at the time limit of the call."""
    for piece in response.iter_bytes():
        deadline.moved(len(piece))
        if deadline.remaining_s() <= 0:
            raise httpx.ReadTimeout("the time limit of the call passed while reading the answer")
        yield piece


def _check_digest(answer: Answer) -> None:
    # With a content coding the digest is that of the coded bytes, which httpx does not keep.
    if "content-encoding" in answer.headers or answer.status != httpx.codes.OK:
        return
    header = answer.headers.get("content-digest") or answer.headers.get("repr-digest")
    promised = expected_sha256(header)
    if promised is not None and answer.sha256 != promised:
        raise DamagedTransfer("the body does not match its digest")


def _raise_if_refused(response: httpx.Response, deadline: Deadline) -> None:
    status = response.status_code
    if status < httpx.codes.MULTIPLE_CHOICES or status == httpx.codes.NOT_MODIFIED:
        return
    if status < httpx.codes.BAD_REQUEST:
        response.close()
        target = response.headers.get("location", "nowhere")
        raise UnexpectedAnswer(
            f"{response.request.url} redirects to {target}; redirects are not followed: give the final address as url"
        )
    try:
        text = b"".join(pieces_of(response, deadline)).decode("utf-8", "replace")
    finally:
        response.close()
    raise refusal(
        status, _json_or_text(text), retry_after_s=retry_after_s(response.headers.get("retry-after"))
    )


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text  # a proxy answered with a page of its own


def _raise_if_hopeless(error: Exception, url: str) -> None:
    if isinstance(error, httpx.LocalProtocolError) and "header" in str(error):
        # Without the cause: it quotes the header, which may be a credential.
        raise InvalidArgument(
            "a header of the call has a line end or another character that none may have"
        ) from None
    reason: BaseException | None = error
    while reason is not None:
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise ConnectionFailed(
                f"the TLS certificate of {url} is not trusted: {reason.verify_message}; "
                "for a private authority set SSL_CERT_FILE, or pass verify=ssl.create_default_context(cafile=...)"
            ) from error
        reason = reason.__cause__ or reason.__context__


def _given_up(failure: Exception, call: str, attempts: int, limit_s: float) -> Exception:
    if isinstance(failure, Refused):
        return failure
    tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    return ConnectionFailed(f"no answer to {call} in {tries} (time limit {limit_s:g} s): {_cause(failure)}")


def _cause(failure: Exception) -> str:
    if isinstance(failure, Refused):
        return f"{failure.status} {failure.code}"
    return f"{type(failure).__name__}: {failure}"


def _warn_of_clear_text(url: httpx.URL) -> None:
    if url.scheme == "http" and not is_this_machine(url.host):
        logger.warning(
            "clear_text host=%s: the credential and the weights travel unencrypted; use https", url.host
        )
