"""The task queue in the database. Its workers are woken when a task comes, and do not poll all the time.

django-q's broker for Redis needs none of this: it waits in Redis.
"""

import time
from datetime import timedelta
from typing import Annotated, NamedTuple

import structlog
from django.db import connections
from django.utils import timezone
from django_q.brokers.orm import ORM
from django_q.conf import Conf
from django_q.models import OrmQ

from fma_django import wakeups
from fma_django.record.sql import Select, Statement, moment

log = structlog.get_logger(__name__)

# A pusher that is told to end hears of it between two calls of `dequeue`.
LISTEN_S = 0.25
# A task counts as waiting from so long ago: the clock of another machine may be late.
CLOCKS_APART = timedelta(minutes=1)
# Other workers are woken by the same task: who comes too late for one tries the next.
MORE = 8


class _Waiting(NamedTuple):
    id: Annotated[int, "{q.id}"]
    payload: Annotated[str, "{q.payload}"]


_WAITING = Select(
    _Waiting, "FROM {q} WHERE {q.key} = %(key)s AND {q.lock} < %(now)s ORDER BY {q.id} LIMIT %(most)s", q=OrmQ
)
_CLAIM = Statement(
    "UPDATE {q} SET {q.lock:bare} = %(until)s WHERE {q.id} = %(id)s AND {q.lock} < %(now)s", q=OrmQ
)
_DELETE = Statement("DELETE FROM {q} WHERE {q.id} = %(id)s", q=OrmQ)


class WokenBroker(ORM):
    """django-q's broker over the ORM; without a wake-up it looks every `poll` seconds (Q_CLUSTER)."""

    _listener: wakeups.Listener | None = None
    _look_on = 0.0

    def enqueue(self, task: str) -> int:
        # django-q's own `get_connection` opens SQLite's file again for each call.
        package = OrmQ.objects.using(Conf.ORM).create(
            key=self.list_key, payload=task, lock=timezone.now() - CLOCKS_APART
        )
        wakeups.send(wakeups.TASKS)
        return int(package.pk)

    def dequeue(self) -> list[tuple[int, str]]:
        """Claim tasks for this worker as soon as there are some; none when there were none for LISTEN_S."""
        if self._listener is None:
            self._listener = wakeups.listen(wakeups.TASKS)
        elif time.monotonic() < self._look_on and not self._listener.wait(LISTEN_S):
            return []
        try:
            tasks = self._claim()
        except Exception as error:  # noqa: BLE001 - whatever the database's library raises
            # django-q would wait ten seconds and start another process.
            log.warning("queue_unreachable", error=repr(error))
            connections[Conf.ORM].close()
            tasks = []
        # What there was more than can be claimed at once is claimed in the next call.
        self._look_on = time.monotonic() + (0 if tasks else Conf.POLL)
        return tasks

    def delete(self, task_id: int) -> None:
        with connections[Conf.ORM].cursor() as cursor:
            _DELETE.execute(cursor, {"id": task_id})

    def _claim(self) -> list[tuple[int, str]]:
        # In SQL: an idle worker does this for ever, and most of what the ORM takes is writing the same SQL each time.
        claimed: list[tuple[int, str]] = []
        with connections[Conf.ORM].cursor() as cursor:
            now = moment(cursor, timezone.now())
            waiting = {"key": self.list_key, "now": now, "most": Conf.BULK + MORE}
            for task in _WAITING.all(cursor, waiting):
                until = moment(cursor, self.timeout(None))
                _CLAIM.execute(cursor, {"until": until, "id": task.id, "now": now})
                if cursor.rowcount == 1:  # otherwise another worker was faster
                    claimed.append((task.id, task.payload))
                if len(claimed) == Conf.BULK:
                    break
        return claimed
