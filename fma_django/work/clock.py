"""Act on deadlines within a second of their passing, from a thread of every worker process.

django-q's schedules run twice a minute, which is too coarse for a round of seconds; they catch up when no worker was
running.
"""

import threading
from typing import Any

import structlog
from django.db import connection

log = structlog.get_logger(__name__)

TICK_S = 1.0


def start(**_kwargs: Any) -> None:
    threading.Thread(target=_tick_for_ever, name="clock", daemon=True).start()


def _tick_for_ever() -> None:
    from fma_django.rounds.deadlines import fire_deadlines, is_any_due

    pause = threading.Event()
    while True:  # for as long as the process lives: a daemon thread
        try:
            if is_any_due():
                fire_deadlines()
        except Exception as error:  # noqa: BLE001 - the database or the broker is away: the next tick may reach it
            log.warning("clock_failed", error=repr(error))
            connection.close()
        pause.wait(TICK_S)
