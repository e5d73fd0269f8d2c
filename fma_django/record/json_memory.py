"""The memory that JSON may take in this process and in the one that parses large JSON for it (`json_process`)."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fma_core.errors import TooLarge
from fma_django import conf
from fma_django.errors import MemoryInUse

NUMBER_BYTES = 64
SMALL_BYTES = 64 * 1024
"""JSON up to this size is not counted: a process has few threads."""


class _Memory:
    """How much of it is reserved now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reserved_bytes = 0

    def reserve(self, size_bytes: int) -> None:
        most = conf.current().json_memory_bytes
        if size_bytes > most:
            raise TooLarge(
                f"this JSON would take {size_bytes} bytes of memory; at most {most} are there (FMA_JSON_MEMORY_BYTES). "
                "Weights as safetensors take none of it"
            )
        with self._lock:
            if self.reserved_bytes + size_bytes > most:
                raise MemoryInUse(
                    "other requests take the memory for JSON (FMA_JSON_MEMORY_BYTES); try again later"
                )
            self.reserved_bytes += size_bytes

    def release(self, size_bytes: int) -> None:
        with self._lock:
            self.reserved_bytes -= size_bytes


memory = _Memory()


class Reservation:
    """A part of the memory, which grows until it is closed."""

    def __init__(self) -> None:
        self._size_bytes = 0

    def grow_to(self, size_bytes: int) -> None:
        """Raises TooLarge for more than the whole memory, MemoryInUse for more than is free."""
        if size_bytes > self._size_bytes:
            # As one step: two requests that wait for the rest of each other's would never end.
            memory.reserve(size_bytes - self._size_bytes)
            self._size_bytes = size_bytes

    def close(self) -> None:
        memory.release(self._size_bytes)
        self._size_bytes = 0


@contextmanager
def reserved(size_bytes: int) -> Iterator[None]:
    """Reserve memory for a while. Raises TooLarge and MemoryInUse."""
    reservation = Reservation()
    reservation.grow_to(size_bytes)
    try:
        yield
    finally:
        reservation.close()
