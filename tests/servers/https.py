"""A small HTTPS server of a test's own.

with HttpsServer(authority, {"/keys": Answer(b"{}")}) as server:
    server.url  # https://localhost:…
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Self

from tests.servers.certificates import Authority


@dataclass
class Answer:
    """pause_s: the time before each byte of the body."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    pause_s: float = 0.0


class HttpsServer:
    """`asked` has the path of each request, `posted` each form, `headers` those of the last request to each path."""

    def __init__(self, authority: Authority, answers: dict[str, Answer]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.posted: list[str] = []
        self.headers: dict[str, Mapping[str, str]] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                outer.headers[self.path] = dict(self.headers)
                outer._answer(self, outer.answers.get(self.path, Answer(status=404)))

            def do_POST(self) -> None:
                outer.posted.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
                self.do_GET()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who breaks off is no error
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.issue("server"))
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = self._server.server_address[1]
        self.url = f"https://localhost:{self.port}"

    def __enter__(self) -> Self:
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @staticmethod
    def _answer(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        if "Content-Length" not in answer.headers:
            handler.send_header("Content-Length", str(len(answer.body)))
        handler.end_headers()
        for start in range(0, len(answer.body), 1 if answer.pause_s else max(1, len(answer.body))):
            time.sleep(answer.pause_s)
            try:
                handler.wfile.write(answer.body[start : start + 1] if answer.pause_s else answer.body)
            except OSError:
                return
