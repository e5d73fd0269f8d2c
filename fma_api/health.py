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
ANOTHER_KEY = (
    "another key: {strays} of {workers} worker processes have another FMA_SECRET_KEY than this process, and cannot "
    "read the tasks that they take; give all the same (the log names them: workers_of_another_key)"
)
MOST_LOGGED = 20


@never_cache
def healthz(request: HttpRequest) -> JsonResponse:
    """200 as long as this process answers."""
    return JsonResponse({"status": "ok"})


@never_cache
def readyz(request: HttpRequest) -> JsonResponse:
    """200 when the database and the store answer and a worker of this secret key was seen lately; else 503.

    Each part says what is wrong with it. Two things are said with 200, because all works, but later: wake-ups that do
    not arrive ("polling: …"), and a worker of another key beside those of this one ("another key: …"). A balancer would
    otherwise take out every web process for one stray worker.
    """
    parts = {"database": _database(), "storage": _storage()}
    has_worker, worker = _worker() if parts["database"] == "ok" else (False, "not known without the database")
    ready = has_worker and all(state == "ok" for state in parts.values())
    parts["worker"] = worker
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


def _worker() -> tuple[bool, str]:
    """Whether a worker can do the tasks of this process, and what is to be said about the workers."""
    seconds = conf.current().worker_seen_s
    try:
        seen = Worker.objects.filter(seen_on__gte=timezone.now() - timedelta(seconds=seconds))
        keys = dict(seen.values_list("name", "key_fingerprint"))
    except DatabaseError as error:
        return False, f"not known: {type(error).__name__}; has the database been migrated?"
    if not keys:
        return False, f"no worker was seen in the last {seconds} seconds; start one with `fma worker`"
    ours = {"", key_fingerprint()}  # one of an earlier version does not say
    strays = sorted(name for name, key in keys.items() if key not in ours)
    if not strays:
        return True, "ok"
    log.warning("workers_of_another_key", workers=strays[:MOST_LOGGED], others=len(keys) - len(strays))
    return len(strays) < len(keys), ANOTHER_KEY.format(strays=len(strays), workers=len(keys))
