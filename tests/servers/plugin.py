"""The fixtures of the real servers; tests/environment.py loads them with Django."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pytest_django import DjangoDbBlocker

from tests.servers import migrated, own_django
from tests.servers.fma import FmaInstall, StartFma
from tests.servers.postgres import PostgresServer, postgres
from tests.servers.s3 import S3Bucket, S3Server, s3

EXIT_LIMIT_S = 60


def pytest_configure(config: pytest.Config) -> None:
    os.environ[migrated.FOLDER] = str(config.rootpath / ".pytest_cache" / "d" / "migrated")
    Path(os.environ[migrated.FOLDER]).mkdir(parents=True, exist_ok=True)


def pytest_unconfigure() -> None:
    """End the process, with the stacks of all threads, when one that a test left behind keeps it from ending."""
    faulthandler.dump_traceback_later(EXIT_LIMIT_S, exit=True, file=sys.__stderr__ or sys.stderr)


@pytest.fixture(scope="session", autouse=True)
def _installations_have_our_django(django_db_blocker: DjangoDbBlocker) -> None:
    own_django.unblock = django_db_blocker.unblock


@pytest.fixture(scope="session", autouse=True)
def _processes_have_one_blas_thread() -> None:
    """Let the processes that tests start have no pool of threads, which takes each 0.1 s of CPU to start; this process
    has its own by now.
    """
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def shared_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all the processes of this test session share: an xdist worker's own one lies below it."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def postgres_server(shared_state: Path) -> Iterator[PostgresServer]:
    """A real PostgreSQL server."""
    with postgres(shared_state / "postgres") as server:
        yield server


@pytest.fixture
def postgres_database(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of an empty PostgreSQL database of the test's own."""
    with postgres_server.new_database() as url:
        yield url


@pytest.fixture(scope="session")
def s3_server(shared_state: Path) -> Iterator[S3Server]:
    """A real S3 server."""
    with s3(shared_state / "s3") as server:
        yield server


@pytest.fixture
def s3_bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Bucket:
    """An empty bucket of the test's own; the environment holds the keys, for this process and those it starts."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server.new_bucket()


@pytest.fixture
def fma_install(tmp_path: Path) -> Iterator[FmaInstall]:
    """An installation in an empty folder; the processes that the test starts end with it."""
    with FmaInstall(tmp_path / "fma-data") as install:
        yield install


@pytest.fixture
def fma_server(tmp_path: Path) -> Iterator[StartFma]:
    """A function that starts a server, ready to use: `fma_server(env={…}, worker=True)`."""
    with ExitStack() as stack:
        yield StartFma(tmp_path, stack)
