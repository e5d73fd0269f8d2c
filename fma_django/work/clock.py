"""Act on deadlines and dead workers within a second, from a thread of every worker process.

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
    from fma_django.work.sweep import take_up_rounds_of_dead_workers

    pause = threading.Event()
    while True:  # for as long as the process lives: a daemon thread
        try:
            if is_any_due():
                fire_deadlines()
            take_up_rounds_of_dead_workers()
        except Exception as error:  # noqa: BLE001 - the database or the broker is away: the next tick may reach it
            log.warning("clock_failed", error=repr(error))
            connection.close()
        pause.wait(TICK_S)
