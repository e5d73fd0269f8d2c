"""The connection of a client to one server, from its opening to its end."""

from types import TracebackType
from typing import Self

from fma_connect.transport import Transport


class Connected:
    """A client of the server at `url`. Used in `with`, it closes its connections at the end."""

    _transport: Transport

    @property
    def url(self) -> str:
        """The server's address."""
        return self._transport.url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; whatever is in memory stays."""
        self._transport.close()
