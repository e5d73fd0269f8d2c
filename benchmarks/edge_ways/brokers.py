"""The queues that fma can be run with: its database, SQLite or PostgreSQL, or Redis beside SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from bench import Bench, NotInstalled

from edge_ways.databases import POSTGRES, SQLITE, new_databases
from edge_ways.servers import Server, fma

REDIS = "Redis"
BROKERS = (SQLITE, POSTGRES, REDIS)


def with_brokers(bench: Bench, stack: ExitStack, notes: list[str]) -> Iterator[tuple[str, Server]]:
    """`fma serve` with each of them, until the stack is left; notes say which are not installed."""
    for broker in BROKERS:
        try:
            yield broker, _start(bench, stack, broker)
        except NotInstalled as why:
            notes.append(str(why))


def _start(bench: Bench, stack: ExitStack, broker: str) -> Server:
    name = POSTGRES if broker == POSTGRES else SQLITE
    (database,) = stack.enter_context(new_databases(bench, name, 1))
    env = {"FMA_BROKER_URL": _redis(bench, stack)} if broker == REDIS else {}
    return stack.enter_context(fma(bench, database, env=env))


def _redis(bench: Bench, stack: ExitStack) -> str:
    try:
        from tests.servers.redis import private_redis

        return stack.enter_context(private_redis(stack.enter_context(bench.new_folder("redis"))))
    except (ImportError, pytest.skip.Exception, pytest.fail.Exception) as why:
        raise NotInstalled(f"no Redis: {why}") from None
