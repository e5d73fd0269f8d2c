"""Wake-ups by PostgreSQL's LISTEN and NOTIFY, between all processes that reach the database."""

import select
from collections.abc import Collection
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections

from fma_django.wakeups.topics import channel_of

PREFIX = "fma_"


class PostgresNotify:
    """Sends through the thread's own connection, and hears through one that belongs to the listener alone."""

    def say(self, topic: str) -> None:
        with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
            # A statement of its own after the commit. In the transaction it would make all commits wait for each other
            # (a notification holds a lock of the database until its commit is on the disk), and fail it when
            # PostgreSQL's queue of notifications is full. Nothing is written, so no disk is waited for.
            cursor.execute(
                "SELECT set_config('synchronous_commit', 'off', true), pg_notify(%s, %s)",
                [PREFIX + channel_of(topic), topic],
            )

    def open_ear(self, channels: Collection[str]) -> "PostgresEar":
        # Not the connection of a thread, which is closed and opened as requests and tasks come and go.
        settings = connections.create_connection(DEFAULT_DB_ALIAS)
        parameters = settings.get_connection_params()
        # A server that vanished without a word is noticed within a minute.
        parameters = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, **parameters}
        return PostgresEar(settings.get_new_connection(parameters), channels)


class PostgresEar:
    def __init__(self, raw: Any, channels: Collection[str]) -> None:
        self._raw = raw
        raw.autocommit = True
        with raw.cursor() as cursor:
            for channel in channels:
                cursor.execute(f'LISTEN "{PREFIX}{channel}"')
        self._poll = select.poll()  # select.select knows no descriptor above 1023
        self._poll.register(raw.fileno(), select.POLLIN)

    def hear(self, timeout_s: float) -> set[str]:
        if not self._raw.notifies and self._poll.poll(timeout_s * 1000):
            self._raw.poll()  # raises when the connection is lost
        topics = {notification.payload for notification in self._raw.notifies}
        self._raw.notifies.clear()
        return topics

    def close(self) -> None:
        self._raw.close()

    def close_in_fork(self) -> None:
        """Nothing: psycopg2 itself does not touch a connection that another process opened."""
