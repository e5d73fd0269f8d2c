"""For whoever operates the server: is this process there, and can the whole thing work?"""

from datetime import timedelta

import structlog
from django.db import DatabaseError, connection
from django.http import HttpRequest, JsonResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache

from fma_django import conf
from fma_django.models import Worker
from fma_django.storage import get_store
from fma_django.wakeups.probe import are_heard
from fma_django.work.heartbeat import key_fingerprint

log = structlog.get_logger(__name__)

POLLING = "polling: wake-ups do not reach this process; a pooler such as PgBouncer must pool by session"


@never_cache
def healthz(request: HttpRequest) -> JsonResponse:
    """200 as long as this process answers."""
    return JsonResponse({"status": "ok"})


@never_cache
def readyz(request: HttpRequest) -> JsonResponse:
    """200 when the database and the store answer and a worker was seen in the last seconds; else 503, saying which.

    `wakeups` says "polling" where they do not arrive: all works, but later, so that is no reason for a 503.
    """
    parts = {"database": _database(), "storage": _storage()}
    parts["worker"] = _worker() if parts["database"] == "ok" else "not known without the database"
    ready = all(state == "ok" for state in parts.values())
    parts["wakeups"] = "ok" if are_heard() else POLLING
    return JsonResponse({"status": "ok" if ready else "unavailable", **parts}, status=200 if ready else 503)


def _database() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Exception as error:  # noqa: BLE001 - each driver has errors of its own; all mean the same here
        return f"not reachable: {type(error).__name__}"
    return "ok"


def _storage() -> str:
    try:
        get_store().ping()
    except Exception as error:  # noqa: BLE001 - a missing library counts as much as a server that is down
        log.error("storage_not_ready", error=str(error))
        return f"not usable: {type(error).__name__}; the log says more"
    return "ok"


def _worker() -> str:
    seconds = conf.current().worker_seen_s
    try:
        seen = Worker.objects.filter(seen_on__gte=timezone.now() - timedelta(seconds=seconds))
        keys = set(seen.values_list("key_fingerprint", flat=True))
    except DatabaseError as error:
        return f"not known: {type(error).__name__}; has the database been migrated?"
    if keys - {"", key_fingerprint()}:  # one of an earlier version does not say
        return "a worker has another FMA_SECRET_KEY than this process, and cannot read the tasks; give both the same"
    if keys:
        return "ok"
    return f"no worker was seen in the last {seconds} seconds; start one with `fma worker`"
