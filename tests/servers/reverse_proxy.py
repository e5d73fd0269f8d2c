"""A reverse proxy that shows a server below a path of its own, as nginx does."""

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "upgrade", "host"}


class ReverseProxy:
    """Passes `prefix` and everything below it to `target`, and answers 502 to all other paths.

    strips: whether the prefix is taken off the path. says: whether X-Forwarded-Prefix is sent.
    """

    def __init__(self, target: str, prefix: str, *, strips: bool, says: bool) -> None:
        self.strays: list[str] = []
        self._target, self._prefix, self._strips, self._says = urlsplit(target), prefix, strips, says
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                proxy._pass_on(self)

            do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = do_OPTIONS = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        self.url = f"{self.origin}{prefix}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _pass_on(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        path = request.path
        if not (path == self._prefix or path.startswith((f"{self._prefix}/", f"{self._prefix}?"))):
            self.strays.append(path)
            request.send_error(502)
            return
        if self._strips:
            path = path.removeprefix(self._prefix)
            path = path if path.startswith("/") else f"/{path}"
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        headers |= {
            "Host": self._target.netloc,
            "X-Forwarded-Host": request.headers["Host"],
            "X-Forwarded-Proto": "http",
            "X-Forwarded-For": "127.0.0.1",
        }
        if self._says:
            headers["X-Forwarded-Prefix"] = self._prefix
        connection = http.client.HTTPConnection(self._target.netloc, timeout=60)
        try:
            connection.request(request.command, path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        request.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP and (
                name.lower() != "content-length" or request.command == "HEAD"
            ):
                request.send_header(name, value)
        if request.command != "HEAD" and answer.status != 304:
            request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)
