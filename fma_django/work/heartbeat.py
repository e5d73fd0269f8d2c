"""Record that a worker process is alive, for `/readyz` and the admin.

Started by django-q in every worker process that it forks, under `fma worker` as well as under `manage.py qcluster`.
"""

import hashlib
import hmac
import os
import socket
import threading
from datetime import UTC, datetime
from functools import cache
from typing import Any

import structlog
from django.conf import settings
from django.db import connection
from django.utils import timezone

from fma_django import conf

log = structlog.get_logger(__name__)

# Of `fma worker`, where worker processes are forked: the ones that follow a finished one have it, too.
STARTED_ON = datetime.now(UTC)


def start(**_kwargs: Any) -> None:
    threading.Thread(target=_beat_for_ever, name="heartbeat", daemon=True).start()


def beat() -> None:
    """Record once that this process is alive."""
    from fma_django.models import Worker

    name = f"{socket.gethostname()}:{os.getpid()}"
    now = timezone.now()
    said = {"seen_on": now, "key_fingerprint": key_fingerprint()}
    if not Worker.objects.filter(name=name).update(**said):
        Worker.objects.get_or_create(name=name, defaults=said)


@cache
def key_fingerprint() -> str:
    """A text that two processes share exactly when they have the same secret key, and that does not tell the key."""
    return hmac.new(settings.SECRET_KEY.encode(), b"fma worker", hashlib.sha256).hexdigest()


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
        connection.close()  # kept, it would be one of four that this process holds, for a statement in five seconds
        pause.wait(conf.current().worker_seen_s / 3)
