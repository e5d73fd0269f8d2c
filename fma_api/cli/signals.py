"""Signals to processes whose libraries stop by setting an Event."""

import signal
from collections.abc import Callable
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT)

Handler = Callable[[int, FrameType | None], object]


def first_alone(handler: Handler) -> Handler:
    """A handler that answers the first signal and ignores the ones after it.

    systemd sends SIGTERM to all processes, and `fma serve` sends it to its children once more. A second handler that
    begins inside the first waits for ever for the lock of the Event that the first one sets.
    """

    def answer(number: int, frame: FrameType | None) -> None:
        for each in STOPPING:
            signal.signal(each, signal.SIG_IGN)
        handler(number, frame)

    return answer
