"""The one thread of a web process that hears what changed, for all who wait."""

import asyncio
import threading
from collections.abc import Callable

from django.db import connection

from fma_django.wakeups import ALL, Listener
from fma_django.wakeups.probe import Probe


def listen_for(
    loop: asyncio.AbstractEventLoop, wake: Callable[[frozenset[str]], None], listen: Callable[[], Listener]
) -> None:
    """Call `wake` in the loop with what is heard, from now on. The thread makes its listener itself."""

    def hear() -> None:
        listener, probe = listen(), Probe()
        heard = frozenset({ALL})  # what was said before it listened
        while not loop.is_closed():  # for as long as the process serves: a daemon thread
            if heard:
                loop.call_soon_threadsafe(wake, heard)
            wait_s = probe.wait_s()
            connection.close()  # of this thread, opened for a probe once a minute
            heard = listener.wait(wait_s)
            probe.take(heard)

    threading.Thread(target=hear, name="wakeups", daemon=True).start()
