"""Record that a worker process is alive, for `/readyz` and the admin.

Started by django-q in every worker process that it forks, under `fma worker` as well as under `manage.py qcluster`.
"""

import os
import socket
import threading
from typing import Any

import structlog
from django.db import connection
from django.utils import timezone

from fma_django import conf

log = structlog.get_logger(__name__)


def start(**_kwargs: Any) -> None:
    threading.Thread(target=_beat_for_ever, name="heartbeat", daemon=True).start()


def beat() -> None:
    """Record once that this process is alive."""
    from fma_django.models import Worker

    name = f"{socket.gethostname()}:{os.getpid()}"
    now = timezone.now()
    if not Worker.objects.filter(name=name).update(seen_on=now):
        Worker.objects.get_or_create(name=name, defaults={"seen_on": now})


def _beat_for_ever() -> None:
    # A worker that starts may follow one that died: what that one left is taken up now, not at the next schedule.
    from django_q.tasks import async_task

    pause = threading.Event()
    swept = False
    while True:  # for as long as the process lives: a daemon thread
        try:
            beat()
            if not swept:
                async_task("fma_django.work.tasks.sweep_rounds")
                swept = True
        except Exception as error:  # noqa: BLE001 - the database or the broker is away: the next beat may reach it
            log.warning("heartbeat_failed", error=repr(error))
            connection.close()
        pause.wait(conf.current().worker_seen_s / 3)
