"""Wake-ups by Redis's publish and subscribe, between all processes that reach the broker."""

from collections.abc import Collection
from functools import cache
from typing import Any

from fma_django.wakeups.topics import channel_of

SAY_WITHIN_S = 0.5  # a request must not wait longer for a Redis that is away
HEALTH_CHECK_S = 15


class RedisChannels:
    def __init__(self, url: str) -> None:
        self._url = url

    def say(self, topic: str) -> None:
        client = _client(self._url)
        client.publish(_name(client, channel_of(topic)), topic)

    def open_ear(self, channels: Collection[str]) -> "RedisEar":
        return RedisEar(_client(self._url), channels)


class RedisEar:
    def __init__(self, client: Any, channels: Collection[str]) -> None:
        self._subscription = client.pubsub(ignore_subscribe_messages=True)
        try:
            self._subscription.subscribe(*(_name(client, channel) for channel in channels))
            for _ in channels:  # what is said before Redis has confirmed is not heard
                self._subscription.get_message(timeout=SAY_WITHIN_S)
        except BaseException:
            self._subscription.close()
            raise

    def hear(self, timeout_s: float) -> set[str]:
        topics: set[str] = set()
        message = self._subscription.get_message(timeout=timeout_s)
        while message is not None:
            topics.add(message["data"].decode())
            message = self._subscription.get_message(timeout=0)
        return topics

    def close(self) -> None:
        self._subscription.close()

    def close_in_fork(self) -> None:
        """Nothing: redis-py itself does not touch a connection that another process opened."""


@cache
def _client(url: str) -> Any:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    # Without redis-py's own retries: they subscribe again in silence, and what was said meanwhile is lost.
    return redis.Redis.from_url(
        url,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=SAY_WITHIN_S,
        socket_connect_timeout=SAY_WITHIN_S,
        socket_keepalive=True,
        health_check_interval=HEALTH_CHECK_S,
    )


def _name(client: Any, channel: str) -> str:
    # Redis's channels know no database number; two servers that share one Redis are told apart by it.
    number = client.connection_pool.connection_kwargs.get("db", 0)
    return f"fma:{number}:{channel}"
