"""The server's clock: in every worker process it looks each second whether a deadline has passed.

django-q's schedules are looked at twice a minute, which is too coarse for a round of seconds; they sweep up what this
leaves when no worker runs.
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
    while True:
        try:
            if is_any_due():
                fire_deadlines()
        except Exception as error:  # noqa: BLE001 - the database or the broker is away: the next tick may reach it
            log.warning("clock_failed", error=repr(error))
            connection.close()
        pause.wait(TICK_S)
