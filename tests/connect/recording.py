"""A transport of httpx that records the timeouts with which the answers were awaited."""

import httpx


class Recording(httpx.HTTPTransport):
    """first_timeouts, last_timeouts: by request, those of its first step and of its last one before the answer."""

    def __init__(self) -> None:
        super().__init__(trust_env=False)
        self.first_timeouts: list[dict[str, float]] = []
        self.last_timeouts: list[dict[str, float]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.first_timeouts.append(dict(request.extensions["timeout"]))
        try:
            return super().handle_request(request)
        finally:
            self.last_timeouts.append(dict(request.extensions["timeout"]))
