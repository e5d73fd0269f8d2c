"""Takes each request from granian, and sees that it is answered."""

import asyncio
from io import BytesIO
from typing import Any

import structlog
from django.core.handlers.wsgi import WSGIHandler

from fma_api.front import django
from fma_api.front.body import StreamedBody
from fma_api.front.environ import environ_of
from fma_api.front.protocol import Exchange, Scope
from fma_api.front.sending import send
from fma_api.front.threads import Threads

log = structlog.get_logger(__name__)

SMALL_BYTES = 64 * 1024
"""Bodies up to this size are read before a thread is taken."""


class Front:
    """The RSGI application of a web process."""

    def __init__(self, handler: WSGIHandler, *, threads: int) -> None:
        self._handler = handler
        self._threads = Threads(threads)

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    async def __rsgi__(self, scope: Scope, exchange: Exchange) -> None:
        environ = environ_of(scope)
        try:
            environ["wsgi.input"] = await self._body(scope, exchange)
        except Exception:  # granian's own: the client has gone before its body was there
            return
        answered = self._loop.create_future()
        self._threads.run(lambda: self._answer(environ, exchange, answered))
        await answered

    async def _body(self, scope: Scope, exchange: Exchange) -> BytesIO | StreamedBody:
        size = scope.headers.get("content-length")
        if size is None or size == "0":
            return BytesIO()
        if int(size) <= SMALL_BYTES and scope.headers.get("expect") is None:
            return BytesIO(await exchange())
        return StreamedBody(self._loop, exchange)

    def _answer(self, environ: dict[str, Any], exchange: Exchange, answered: asyncio.Future[None]) -> None:
        try:
            response = django.answer(self._handler, environ)
            try:
                send(exchange, response, is_head=environ["REQUEST_METHOD"] == "HEAD")
            finally:
                response.close()
        except BaseException:  # granian panics (no Exception) at what is no header
            log.exception("answer_broke")
        finally:
            if isinstance(environ["wsgi.input"], StreamedBody):
                environ["wsgi.input"].close()
            self._loop.call_soon_threadsafe(answered.set_result, None)
