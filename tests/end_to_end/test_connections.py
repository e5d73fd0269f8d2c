"""The connections to PostgreSQL that a deployment holds, against the sum that the guide gives."""

import threading
import time
from pathlib import Path

import httpx
import psycopg2
import pytest

from tests.servers.fma import FmaInstall
from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.processes, pytest.mark.postgres, pytest.mark.slow]

THREADS, PROCESSES = 5, 2


def test_a_web_process_and_workers_hold_no_more_than_the_guide_says(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    with postgres_server.migrated_database() as url:
        env = {
            "FMA_DATABASE_URL": url,
            "FMA_WEB_THREADS": str(THREADS),
            "FMA_WORKER_PROCESSES": str(PROCESSES),
            "FMA_WORKER_SEEN_SECONDS": "3",
        }
        with FmaInstall(tmp_path / "data", env) as install:
            install.migrate()
            server = install.start_web()
            owner = install.add_user("alice")
            for _ in range(2):
                install.start_worker()
            until = time.monotonic() + 7
            most = 0

            def ask() -> None:
                with httpx.Client(base_url=server.base_url, headers=owner.headers, timeout=30) as client:
                    while time.monotonic() < until:
                        client.get("/api/v1/models/").raise_for_status()
                        time.sleep(0.02)

            asking = [threading.Thread(target=ask) for _ in range(4 * THREADS)]
            for thread in asking:
                thread.start()
            connection = psycopg2.connect(url)
            connection.autocommit = True  # a transaction sees the first answer again and again
            with connection.cursor() as cursor:
                while time.monotonic() < until:
                    cursor.execute(
                        "SELECT count(*) FROM pg_stat_activity"
                        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )
                    most = max(most, cursor.fetchone()[0])
                    time.sleep(0.05)
            for thread in asking:
                thread.join()
            connection.close()

    allowed = (THREADS + 2) + 2 * (3 + 4 * PROCESSES)
    assert allowed / 2 < most <= allowed
