"""Takes each request from granian, and sees that it is answered."""

import asyncio
import re
import signal
from collections.abc import Callable
from io import BytesIO
from typing import Any, TypeVar
from urllib.parse import unquote_plus

import structlog
from django.core.handlers.wsgi import WSGIHandler

from fma_api import problems, security_headers
from fma_api.front import body as bodies
from fma_api.front import django
from fma_api.front.body import StreamedBody, read_small
from fma_api.front.body_places import BodyPlaces, NoPlace
from fma_api.front.environ import environ_of
from fma_api.front.listening import listen_for
from fma_api.front.protocol import Exchange, Reading, Scope
from fma_api.front.refusals import Refusal, Refusals, refusal_of
from fma_api.front.responses import MAY_WAIT, NothingYet, is_kept
from fma_api.front.sending import send
from fma_api.front.threads import Threads
from fma_api.front.waiting_room import Outcome, WaitingRoom
from fma_api.renderers import dumps
from fma_api.sender_address import network_of, sender_address
from fma_django import conf, wakeups

log = structlog.get_logger(__name__)

SMALL_BYTES = 64 * 1024
"""Bodies up to this size, and as much of those whose size nobody announced, are read before a thread is taken."""
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
FORM_BYTES = 4 * 2**20
"""The largest form. Django reads forms, those of the admin, before it knows who sent them: also without a thread."""
FORMS_AT_ONCE = 32
"""So many forms beyond SMALL_BYTES are read at one time, which limits what strangers can put into memory; of one
address no more than other large bodies."""
HANG_UP = [
    ("Connection", "close"),
    ("Content-Type", problems.CONTENT_TYPE),
    *security_headers.of_no_page().items(),
]
TOO_SLOW = dumps(
    problems.problem_of(
        408, "request_timeout", f"the body did not arrive within {bodies.SILENCE_S:g} seconds"
    )
)
CUT_OFF = dumps(problems.problem_of(400, "truncated_body", "the body ended before its announced end"))
TOO_LARGE = dumps(
    problems.problem_of(413, "too_large", f"a form may have {FORM_BYTES} bytes; the API takes larger bodies")
)
RETRY_AFTER_S = "10"
WAIT = re.compile("(?:^|(?<=&))(?:w|%77)(?:a|%61)(?:i|%69)(?:t|%74)=([^&]*)")
"""Any spelling of `wait=` in a query. To parse one of 64 kB takes the event loop milliseconds."""
TOO_MANY_WAITS = Refusal(
    429,
    [
        ("Retry-After", RETRY_AFTER_S),
        ("Content-Type", problems.CONTENT_TYPE),
        *security_headers.of_no_page().items(),
    ],
    dumps(
        problems.problem_of(
            429,
            "too_many_waits",
            "this client or address waits for too many answers; ask for fewer at one time",
        )
    ),
)
TOO_MANY = dumps(
    problems.problem_of(
        429,
        "too_many_bodies",
        "this client or address sends too many bodies at one time; the others must end first",
    )
)
WATCHED = ("healthz", "readyz")
LOOK_EVERY_S = 20.0
"""A wake-up may be lost (fma_django.wakeups): who waits looks by itself now and then."""

BodyT = TypeVar("BodyT")
Environ = dict[str, Any]


class Front:
    """The RSGI application of a web process. `listen`: another way to hear what changed, for tests."""

    def __init__(
        self,
        handler: WSGIHandler,
        *,
        threads: int,
        waiters: int,
        bodies_per_address: int = 8,
        bodies_per_client: int = 4,
        listen: Callable[[], wakeups.Listener] = lambda: wakeups.listen("model"),
    ) -> None:
        self._handler = handler
        self._threads = Threads(threads)
        self._waiters = waiters
        self._listen = listen
        self._refusals = Refusals()
        self._forms = BodyPlaces(
            most=FORMS_AT_ONCE, per_address=bodies_per_address, per_client=bodies_per_client
        )
        # What watches over this process is answered while all other threads are busy.
        self._watched = {path: Threads(1) for path in WATCHED}
        self._bodies = BodyPlaces(
            most=max(1, threads - max(1, threads // 4)),
            per_address=bodies_per_address,
            per_client=bodies_per_client,
        )

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.start(loop)
        for number in (signal.SIGINT, signal.SIGTERM):
            # granian has said to the loop what it does then: wait for all requests. Python calls this one besides.
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(self.room.close))
            signal.siginterrupt(number, False)

    @property
    def num_threads(self) -> int:
        return self._threads.count

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.room = WaitingRoom(loop, places=self._waiters)
        listen_for(loop, self.room.wake, self._listen)

    async def __rsgi__(self, scope: Scope, exchange: Exchange) -> None:
        environ = environ_of(scope)
        try:
            body = await self._body(scope, exchange, environ)
        except NoPlace:
            exchange.response_bytes(429, [*HANG_UP, ("Retry-After", RETRY_AFTER_S)], TOO_MANY)
            return
        except asyncio.CancelledError:  # its client was given up, and told so
            return
        except Exception:  # noqa: BLE001 - granian's own: its client has gone, or sends no more
            exchange.response_bytes(400, HANG_UP, CUT_OFF)
            return
        if body is None:
            exchange.response_bytes(413, HANG_UP, TOO_LARGE)
            return
        if isinstance(body, StreamedBody):
            # A body that was read cannot be read again, so this request cannot be repeated.
            try:
                async with self._bodies.place(sender_address(environ), environ.get("HTTP_CLIENT_UUID")):
                    await self._answer(exchange, {**environ, "wsgi.input": body}, may_wait=False)
            except NoPlace:
                exchange.response_bytes(429, [*HANG_UP, ("Retry-After", RETRY_AFTER_S)], TOO_MANY)
            if "HTTP_EXPECT" not in environ:
                await body.drop_the_rest()
            body.close()
            return
        if "CONTENT_LENGTH" not in environ and environ.pop("HTTP_TRANSFER_ENCODING", None) is not None:
            environ["CONTENT_LENGTH"] = str(len(body))
        if (refusal := self._refusals.of(environ, body)) is not None:
            await self._refusals.repeat(exchange, refusal)
            return
        match await self._turn(exchange, environ):
            case Outcome.NO_PLACE:
                self._refusals.remember(self._loop, environ, body, TOO_MANY_WAITS)
                TOO_MANY_WAITS.send(exchange)
                return
            case Outcome.GONE:
                return
        since = self.room.moment
        kept = await self._answer(
            exchange, {**environ, "wsgi.input": BytesIO(body)}, may_wait=True, may_repeat=body
        )
        if kept is None:
            return
        until = self._loop.time() + kept.seconds
        while kept is not None:
            look_at = min(until, self._loop.time() + LOOK_EVERY_S)
            address, client = _sender(environ)
            outcome = await self.room.wait(
                exchange, kept.topics, since=since, until=look_at, address=address, client=client
            )
            if outcome in (Outcome.GONE, Outcome.NO_PLACE):
                send(exchange, kept)
                return
            since, may_wait = self.room.moment, self._loop.time() < until
            # Django and its middleware write into what they are given.
            kept = await self._answer(exchange, {**environ, "wsgi.input": BytesIO(body)}, may_wait=may_wait)

    async def _body(self, scope: Scope, exchange: Exchange, environ: Environ) -> bytes | StreamedBody | None:
        """The body, read or to be read; None for a form that is too large. Raises NoPlace."""
        size = scope.headers.get("content-length")
        if size is None and scope.headers.get("transfer-encoding") is not None:
            chunks = read_small(self._loop, exchange, limit=SMALL_BYTES)
            return await self._in_time(exchange, self._loop.create_task(chunks))
        if size is None or size == "0":
            return b""
        if int(size) <= SMALL_BYTES:
            return await self._in_time(exchange, exchange())
        if _media_type(environ) in FORMS:
            if int(size) > FORM_BYTES:
                return None
            return await self._in_time(exchange, self._loop.create_task(self._form(exchange, environ)))
        return StreamedBody(self._loop, exchange)

    async def _turn(self, exchange: Exchange, environ: Environ) -> Outcome:
        """Hold a request that wants to wait, and finds no place, until its sender may look."""
        seconds = _wait_s(environ["QUERY_STRING"])
        if not seconds > 0:
            return Outcome.TIME
        address, client = _sender(environ)
        return await self.room.turn(exchange, seconds=seconds, address=address, client=client)

    async def _form(self, exchange: Exchange, environ: Environ) -> bytes:
        async with self._forms.place(sender_address(environ), None):
            return await exchange()

    async def _in_time(self, exchange: Exchange, reading: Reading[BodyT]) -> BodyT:
        too_late = self._loop.call_later(bodies.SILENCE_S, _give_up, exchange, reading)
        try:
            return await reading
        finally:
            too_late.cancel()

    async def _answer(
        self, exchange: Exchange, environ: Environ, *, may_wait: bool, may_repeat: bytes | None = None
    ) -> NothingYet | None:
        """Send the response, from a thread, or keep (and return) it when it is worth waiting for another one.

        may_repeat: the body of a request whose refusal is remembered, perhaps while this one waits for a thread.
        """
        address, client = _sender(environ)
        environ[MAY_WAIT] = may_wait and self.room.takes_more_of(address, client)
        done: asyncio.Future[NothingYet | None] = self._loop.create_future()
        threads = self._watched.get(_last_name(environ), self._threads)
        threads.run(lambda: self._work(exchange, environ, done, may_repeat), sender=address)
        return await done

    def _work(
        self,
        exchange: Exchange,
        environ: Environ,
        done: asyncio.Future[NothingYet | None],
        may_repeat: bytes | None,
    ) -> None:
        kept: NothingYet | None = None
        try:
            if may_repeat is not None and (refusal := self._refusals.of(environ, may_repeat)) is not None:
                refusal.send(exchange)
                return
            response = django.answer(self._handler, environ)
            try:
                if is_kept(response, environ):
                    kept = response
                else:
                    is_head = environ["REQUEST_METHOD"] == "HEAD"
                    send(exchange, response, is_head=is_head)
                    if may_repeat is not None and not is_head and _last_name(environ) not in WATCHED:
                        self._refusals.remember(self._loop, environ, may_repeat, refusal_of(response))
            finally:
                response.close()
        except BaseException:  # granian panics (no Exception) at what is no header
            log.exception("answer_broke")
            kept = None
            send(exchange, django.server_error())  # without effect when an answer has begun
        finally:
            self._loop.call_soon_threadsafe(done.set_result, kept)


def _sender(environ: Environ) -> tuple[str, str | None]:
    """The address, or network of IPv6, and the credential."""
    credential = environ.get("HTTP_CLIENT_UUID") or environ.get("HTTP_AUTHORIZATION")
    return network_of(sender_address(environ)), credential


def _wait_s(query: str) -> float:
    """The seconds that a request may wait, as its view will read them."""
    asked = WAIT.findall(query)
    if not asked:
        return 0.0
    try:
        return min(float(unquote_plus(asked[-1])), conf.current().max_wait_s)
    except ValueError:
        return 0.0


def _last_name(environ: Environ) -> str:
    """The last segment of the path."""
    return str(environ["PATH_INFO"]).rpartition("/")[2]


def _media_type(environ: Environ) -> str:
    """As Django reads it."""
    return str(environ.get("CONTENT_TYPE", "")).partition(";")[0].strip().lower()


def _give_up(exchange: Exchange, reading: Reading[Any]) -> None:
    exchange.response_bytes(408, HANG_UP, TOO_SLOW)
    reading.cancel()  # as long as somebody reads, granian keeps the connection
