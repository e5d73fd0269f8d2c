"""The contract of wake-ups on Redis's channels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from pytest_django import Settings

from fma_django import wakeups
from fma_django.wakeups import Listener, of_model
from tests.contracts.wakeups import A_MOMENT_S, Harness, WakeupsContract
from tests.servers.free_port import free_port
from tests.servers.redis import private_redis

pytestmark = pytest.mark.django_db(transaction=True)


class RedisHarness(Harness):
    def __init__(self, url: str, settings: Settings) -> None:
        self._url = url
        self._settings = settings
        self.restore()

    def cut(self, listener: Listener) -> None:
        with redis.Redis.from_url(self._url) as client:
            client.client_kill_filter(_type="pubsub")

    def break_saying(self) -> None:
        self._settings.FMA_BROKER_URL = f"redis://127.0.0.1:{free_port()}/0"

    def restore(self) -> None:
        self._settings.FMA_BROKER_URL = self._url


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with private_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


class TestRedisChannels(WakeupsContract):
    @pytest.fixture
    def harness(self, redis_url: str, settings: Settings) -> RedisHarness:
        return RedisHarness(redis_url, settings)


def test_servers_that_share_a_redis_wake_only_their_own(redis_url: str, settings: Settings) -> None:
    settings.FMA_BROKER_URL = redis_url
    listener = wakeups.listen()
    settings.FMA_BROKER_URL = redis_url.removesuffix("/0") + "/1"
    wakeups.send(of_model(7))

    assert listener.wait(A_MOMENT_S) == frozenset()
    listener.close()
