"""Hear wake-ups for as long as a process lives, through lost connections and forks."""

import os
import time
import weakref
from collections.abc import Callable, Collection
from typing import Protocol

import structlog

log = structlog.get_logger(__name__)

ALL = "*"
"""The topic that is heard when wake-ups may have been missed: anything may have changed."""

RETRY_S = 1.0


class Ear(Protocol):
    """The connection through which a listener hears. It is used by one thread, and raises when it is lost."""

    def hear(self, timeout_s: float) -> set[str]:
        """The topics that came, as soon as there is one; none when the time is over."""

    def close(self) -> None: ...

    def close_in_fork(self) -> None:
        """Release in a forked child what it inherited, and send nothing: the connection is the parent's."""


class Carrier(Protocol):
    """A transport of wake-ups between processes."""

    def say(self, topic: str) -> None:
        """Wake the present listeners; may raise, and must not take long."""

    def open_ear(self, channels: Collection[str]) -> Ear:
        """Hear the wake-ups of these channels from now on; may raise."""


class Listener:
    """Hears from the moment it is made: read the database once after making it, and after each wake-up.

    It belongs to one thread. A lost connection is opened again, also in a forked child; then, and whenever something
    was missed, `wait` returns `ALL`.
    """

    def __init__(self, open_ear: Callable[[], Ear]) -> None:
        self._open_ear = open_ear
        self._ear: Ear | None = None
        _listeners.add(self)
        self._open()

    def wait(self, timeout_s: float) -> frozenset[str]:
        """The topics since the last call, as soon as there is one; none when the time is over."""
        until = time.monotonic() + timeout_s
        while True:
            left = max(0.0, until - time.monotonic())
            if self._ear is None:
                if self._open():
                    return frozenset({ALL})
                time.sleep(min(left, RETRY_S))
                if left <= RETRY_S:
                    return frozenset()
                continue
            try:
                return frozenset(self._ear.hear(left))
            except Exception as error:  # noqa: BLE001 - whatever the carrier's library raises
                log.warning("wakeups_lost", error=repr(error))
                self.close()

    def close(self) -> None:
        """Stop hearing; a later `wait` begins again."""
        ear, self._ear = self._ear, None
        if ear is not None:
            try:
                ear.close()
            except Exception as error:  # noqa: BLE001 - whatever the carrier's library raises
                log.debug("wakeups_close_failed", error=repr(error))

    def _open(self) -> bool:
        try:
            self._ear = self._open_ear()
        except Exception as error:  # noqa: BLE001 - the database or Redis is away: `wait` tries again
            log.warning("wakeups_unheard", error=repr(error))
            return False
        return True

    def _leave_to_parent(self) -> None:
        ear, self._ear = self._ear, None
        if ear is not None:
            ear.close_in_fork()


_listeners: "weakref.WeakSet[Listener]" = weakref.WeakSet()


def _leave_all_to_parent() -> None:
    for listener in list(_listeners):
        listener._leave_to_parent()


os.register_at_fork(after_in_child=_leave_all_to_parent)
