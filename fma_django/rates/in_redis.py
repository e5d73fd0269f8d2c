"""Limits as all processes of a server count them together: one round trip to Redis."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from fma_django.rates.cost import Cost

PREFIX = "fma:rate:"
# By the clock of Redis, which all share. KEYS and ARGV: of each cost its key, what it takes and its period.
TAKE = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local wait, slowest, at = 0, '', {}
for i, key in ipairs(KEYS) do
  local takes, period = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  at[i] = math.max(tonumber(redis.call('GET', key) or '0'), now)
  local needs = at[i] - now + math.min(takes, period) - period
  if needs > wait then wait, slowest = needs, key end
end
if wait <= 0 then
  for i, key in ipairs(KEYS) do
    local full = at[i] + tonumber(ARGV[2 * i - 1])
    if full > now then
      redis.call('SET', key, string.format('%.6f', full), 'PX', math.ceil((full - now) * 1000) + 1)
    else
      redis.call('DEL', key)
    end
  end
end
return {tostring(wait), slowest}
"""


def take(url: str, costs: Sequence[Cost]) -> tuple[float, str]:
    """As InProcess.take. Raises redis.RedisError."""
    arguments = [number for cost in costs for number in (cost.takes_s, cost.period_s)]
    answer: list[bytes] = _script(url)(keys=[PREFIX + cost.key for cost in costs], args=arguments)
    return float(answer[0]), answer[1].decode().removeprefix(PREFIX)


@cache
def _script(url: str) -> Any:
    import redis

    return redis.Redis.from_url(url, socket_timeout=1.0, socket_connect_timeout=1.0).register_script(TAKE)
