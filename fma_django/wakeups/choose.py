"""Send and hear wake-ups, through the carrier that the settings name."""

import hashlib
import tempfile
from pathlib import Path

import structlog
from django.db import connection, transaction

from fma_django import conf
from fma_django.wakeups.listener import Carrier, Listener
from fma_django.wakeups.named_pipes import NamedPipes
from fma_django.wakeups.postgres_notify import PostgresNotify
from fma_django.wakeups.redis_channels import RedisChannels
from fma_django.wakeups.topics import CHANNELS

log = structlog.get_logger(__name__)


def send(topic: str) -> None:
    """Wake all listeners of a topic, after the commit of the open transaction, or at once without one.

    Never raises: a listener that was not woken finds the news a little later by itself.
    """
    transaction.on_commit(lambda: say(topic), robust=True)


def listen(*channels: str) -> Listener:
    """Hear the wake-ups of these channels from now on, or of all channels. Does not raise when the carrier is away."""
    unknown = set(channels) - set(CHANNELS)
    if unknown:
        raise ValueError(f"the channels of wake-ups are {CHANNELS}; found {sorted(unknown)}")
    return Listener(lambda: get_carrier().open_ear(channels or CHANNELS))


def get_carrier() -> Carrier:
    if url := conf.current().broker_url:
        return RedisChannels(url)
    if connection.vendor == "postgresql":
        return PostgresNotify()
    return NamedPipes(_folder_of_pipes())


def _folder_of_pipes() -> Path:
    """The folder beside SQLite's file: a process that reaches the file reaches the pipes."""
    name = str(connection.settings_dict["NAME"])
    if connection.vendor == "sqlite" and not name.startswith(("file:", ":memory:")):
        return Path(f"{name}.wakeups")
    digest = hashlib.sha256(repr((connection.vendor, connection.settings_dict)).encode()).hexdigest()
    return Path(tempfile.gettempdir(), f"fma-{digest[:16]}.wakeups")


def say(topic: str) -> None:
    """Wake all listeners of a topic at once, whatever transaction is open. Never raises."""
    try:
        get_carrier().say(topic)
    except Exception as error:  # noqa: BLE001 - whatever the carrier's library raises
        log.warning("wakeup_unsaid", topic=topic, error=repr(error))
