"""The choice of the carrier of wake-ups by the settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.db import connection, connections
from pytest_django import Settings

from fma_django import wakeups
from fma_django.wakeups.choose import get_carrier
from fma_django.wakeups.named_pipes import NamedPipes
from fma_django.wakeups.postgres_notify import PostgresNotify
from fma_django.wakeups.redis_channels import RedisChannels


def test_redis_carries_where_there_is_one(settings: Settings) -> None:
    settings.FMA_BROKER_URL = "redis://127.0.0.1:1/0"

    assert isinstance(get_carrier(), RedisChannels)


def test_postgresql_carries_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(connections["default"]), "vendor", "postgresql")

    assert isinstance(get_carrier(), PostgresNotify)


@pytest.mark.parametrize(
    ("name", "beside"), [("/srv/fma/fma.sqlite3", True), (":memory:", False), ("file:x?mode=memory", False)]
)
def test_pipes_lie_beside_the_file_of_sqlite(
    name: str, beside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(connections["default"]), "vendor", "sqlite")
    monkeypatch.setitem(connection.settings_dict, "NAME", name)

    carrier = get_carrier()

    assert isinstance(carrier, NamedPipes)
    assert (carrier._folder == Path("/srv/fma/fma.sqlite3.wakeups")) is beside


def test_an_unknown_channel_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the channels of wake-ups are .*'models'"):
        wakeups.listen("models")
