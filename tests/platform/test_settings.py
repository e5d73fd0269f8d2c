"""The settings that Django gets, in a process of its own for each environment."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from django.db.utils import ConnectionHandler
from psycopg2 import OperationalError

SHOW = """
import json, sys
from fma_api import settings
print(json.dumps({name: getattr(settings, name) for name in sys.argv[1:]}, default=str))
"""
PRODUCTION = {
    "FMA_DATABASE_URL": "postgres://fma:p%40ss@db.example:5433/federated",
    "FMA_ALLOWED_HOSTS": "fma.example.org",
    "FMA_SECRET_KEY": "9wq8d7g2h3k4j5l6z7x8c9v0b1n2m3a4s5d6f7g8h9j0klqwertyu",
    "FMA_HTTPS": "true",
    "FMA_TRUST_PROXY": "true",
    "FMA_REGISTRATION": "closed",
}


def django_settings(env: dict[str, str], data_dir: Path, *names: str) -> dict[str, Any]:
    base = {"PATH": "/usr/bin:/bin", "FMA_SECRET_KEY": "tests-only" * 5, "FMA_DATA_DIR": str(data_dir)}
    done = subprocess.run(
        [sys.executable, "-c", SHOW, *names], env=base | env, capture_output=True, text=True, check=True
    )
    settings: dict[str, Any] = json.loads(done.stdout)
    return settings


def test_sqlite_is_opened_so_that_writers_wait_for_each_other(tmp_path: Path) -> None:
    database = django_settings({}, tmp_path / "a b%20", "DATABASES")["DATABASES"]["default"]

    assert database["NAME"] == str(tmp_path / "a b%20" / "fma.sqlite3")
    assert database["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert database["OPTIONS"]["timeout"] == 20
    assert "journal_mode=WAL" in database["OPTIONS"]["init_command"]


def test_postgresql_connections_are_kept_and_checked(tmp_path: Path) -> None:
    database = django_settings(PRODUCTION, tmp_path, "DATABASES")["DATABASES"]["default"]

    assert database["ENGINE"] == "django.db.backends.postgresql"
    assert (database["HOST"], database["PORT"], database["NAME"]) == ("db.example", 5433, "federated")
    assert database["PASSWORD"] == "p@ss"
    assert database["CONN_MAX_AGE"] is None
    assert database["CONN_HEALTH_CHECKS"] is True


def test_a_postgresql_server_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgres://fma@127.0.0.1:{silent.getsockname()[1]}/fma"
        usual = django_settings({"FMA_DATABASE_URL": url}, tmp_path, "DATABASES")["DATABASES"]["default"]
        own = django_settings({"FMA_DATABASE_URL": f"{url}?connect_timeout=2"}, tmp_path, "DATABASES")[
            "DATABASES"
        ]["default"]
        with pytest.raises(OperationalError, match="timeout expired"):
            ConnectionHandler({"default": own})["default"].connect()

    assert usual["OPTIONS"]["connect_timeout"] == 10
    assert own["OPTIONS"] == {**usual["OPTIONS"], "connect_timeout": 2}


def test_the_queue_lies_in_the_database_unless_there_is_redis(tmp_path: Path) -> None:
    alone = django_settings({}, tmp_path, "Q_CLUSTER")["Q_CLUSTER"]
    on_redis = django_settings({"FMA_BROKER_URL": "redis://r:6379/0"}, tmp_path, "Q_CLUSTER", "CACHES")

    assert alone["orm"] == "default"
    assert on_redis["Q_CLUSTER"]["redis"] == on_redis["CACHES"]["default"]["LOCATION"]
    assert on_redis["Q_CLUSTER"]["redis"].startswith("redis://r:6379/0?")
    assert "orm" not in on_redis["Q_CLUSTER"]


def test_a_redis_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        usual = django_settings({"FMA_BROKER_URL": address}, tmp_path, "Q_CLUSTER")["Q_CLUSTER"]["redis"]
        own = f"{address}?socket_timeout=0.2"
        taken = django_settings({"FMA_BROKER_URL": own}, tmp_path, "Q_CLUSTER")["Q_CLUSTER"]["redis"]
        with pytest.raises(redis.TimeoutError):
            redis.Redis.from_url(taken).rpush("queue", "task")

    assert redis.Redis.from_url(usual).connection_pool.connection_kwargs["socket_timeout"] == 5
    assert taken == own


def test_a_task_is_never_handed_out_again_while_it_may_run(tmp_path: Path) -> None:
    queue = django_settings({"FMA_AGGREGATION_TIMEOUT_SECONDS": "100"}, tmp_path, "Q_CLUSTER")["Q_CLUSTER"]

    assert queue["timeout"] == 100 < queue["retry"]


def test_a_forwarded_address_is_believed_only_from_a_trusted_proxy(tmp_path: Path) -> None:
    names = ("REST_FRAMEWORK", "USE_X_FORWARDED_HOST", "SECURE_PROXY_SSL_HEADER")
    alone = django_settings({}, tmp_path, *names)
    behind = django_settings({"FMA_TRUST_PROXY": "true"}, tmp_path, *names)

    assert (alone["REST_FRAMEWORK"]["NUM_PROXIES"], behind["REST_FRAMEWORK"]["NUM_PROXIES"]) == (0, 1)
    assert (alone["USE_X_FORWARDED_HOST"], behind["USE_X_FORWARDED_HOST"]) == (False, True)
    assert alone["SECURE_PROXY_SSL_HEADER"] is None


def test_every_fma_setting_is_a_django_setting(tmp_path: Path) -> None:
    shown = django_settings({"FMA_MAX_ARRAYS": "7"}, tmp_path, "FMA_MAX_ARRAYS", "FMA_STORAGE_URL")

    assert shown == {"FMA_MAX_ARRAYS": 7, "FMA_STORAGE_URL": f"file://{tmp_path}/storage"}


@pytest.mark.slow
def test_a_production_environment_passes_every_deployment_check(tmp_path: Path) -> None:
    env = {"PATH": "/usr/bin:/bin", "FMA_DATA_DIR": str(tmp_path), **PRODUCTION}

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "fma_api.cli",
            "manage",
            "check",
            "--deploy",
            "--fail-level",
            "INFO",
        ],
        env=env,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
