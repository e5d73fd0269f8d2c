"""Places of large bodies: one that is read holds a thread, so few are read at one time, and few of one sender."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fma_api.sender_address import network_of

WAIT_S = 30.0
"""How long a body waits in the event loop, unread, for the others of its sender."""


class NoPlace(Exception):
    """None became free in time."""


class BodyPlaces:
    """Belongs to the event loop's thread.

    most: of all senders together, less than there are threads, so that small requests are answered meanwhile.
    """

    def __init__(self, *, most: int, per_address: int, per_client: int) -> None:
        self._all = asyncio.Semaphore(most)
        self._per_address, self._per_client = per_address, per_client
        self._of_senders: dict[str, _Places] = {}

    @asynccontextmanager
    async def place(self, address: str, credential: str | None) -> AsyncIterator[None]:
        """Wait for a place of the sender, then for one of all, and keep both. Raises NoPlace after WAIT_S."""
        limits = {f"address {network_of(address)}": self._per_address}
        if credential is not None:
            limits[f"client {credential}"] = self._per_client
        async with AsyncExitStack() as places:
            try:
                async with asyncio.timeout(WAIT_S):
                    for sender, most in limits.items():
                        await places.enter_async_context(self._of_sender(sender, most))
                    await places.enter_async_context(self._all)
            except TimeoutError:
                raise NoPlace from None
            yield

    @asynccontextmanager
    async def _of_sender(self, sender: str, most: int) -> AsyncIterator[None]:
        places = self._of_senders.setdefault(sender, _Places(most))
        places.num_users += 1
        try:
            async with places.free:
                yield
        finally:
            places.num_users -= 1
            if not places.num_users:
                del self._of_senders[sender]


class _Places:
    """num_users: who has one or waits for one."""

    def __init__(self, most: int) -> None:
        self.free = asyncio.Semaphore(most)
        self.num_users = 0
