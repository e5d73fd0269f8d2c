"""The contract of wake-ups on PostgreSQL's LISTEN and NOTIFY."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import environ
import pytest
from django.db.utils import ConnectionHandler

from fma_django.wakeups import Listener, choose, postgres_notify, probe
from tests.contracts.wakeups import Harness, WakeupsContract
from tests.servers.free_port import free_port
from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.postgres]


class PostgresHarness(Harness):
    def __init__(self, server: PostgresServer, connections: ConnectionHandler) -> None:
        self._server = server
        self._connections = connections
        self._settings = connections["default"].settings_dict
        self._port = self._settings["PORT"]

    def cut(self, listener: Listener) -> None:
        self._server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = '{self._settings['NAME']}' AND query LIKE 'LISTEN%'"
        )

    def break_saying(self) -> None:
        self._connections["default"].close()
        self._settings["PORT"] = free_port()

    def restore(self) -> None:
        self._settings["PORT"] = self._port


class PooledByTransaction(postgres_notify.PostgresNotify):
    """As PgBouncer does it: after a statement, the connection that listens is not the client's any more."""

    def open_ear(self, channels: Collection[str]) -> postgres_notify.PostgresEar:
        ear = super().open_ear(channels)
        with ear._raw.cursor() as cursor:
            cursor.execute("UNLISTEN *")
        return ear


class TestPostgresNotify(WakeupsContract):
    @pytest.mark.parametrize(
        ("carrier", "are_heard"), [(postgres_notify.PostgresNotify, True), (PooledByTransaction, False)]
    )
    def test_a_process_knows_whether_it_hears(
        self, harness: PostgresHarness, monkeypatch: pytest.MonkeyPatch, carrier: Any, are_heard: bool
    ) -> None:
        monkeypatch.setattr(choose, "get_carrier", carrier)
        monkeypatch.setattr(probe, "_is_deaf", are_heard)
        monkeypatch.setattr(probe, "WITHIN_S", 1.0)
        listener, own = choose.listen("model"), probe.Probe()

        own.take(listener.wait(own.wait_s()))

        listener.close()
        assert probe.are_heard() is are_heard

    @pytest.fixture
    def harness(
        self, postgres_server: PostgresServer, postgres_database: str, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[PostgresHarness]:
        # Beside the database of the test run, which may be SQLite: its commits say when.
        connections = ConnectionHandler({"default": environ.Env.db_url_config(postgres_database)})
        monkeypatch.setattr(postgres_notify, "connections", connections)
        monkeypatch.setattr(choose, "get_carrier", postgres_notify.PostgresNotify)
        yield PostgresHarness(postgres_server, connections)
        connections["default"].close()
