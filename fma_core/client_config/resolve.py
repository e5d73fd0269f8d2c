"""The configuration of one client in one round.

Sources are applied in this order, and later ones win, key by key: the model's config, the settings of its strategy
(FedProx's mu), overrides by round alone, overrides by tag, overrides by client; within a kind, in the order of the
list.

An override is {"rounds": [first, last or null], "tags": […], "clients": […], "set": {…}}. It applies when all of its
conditions hold: the round is within both ends, the client has one of the tags, and is one of the clients. An override
without conditions always applies.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fma_core.client_config.schedules import schedules

SCHEDULE = "$schedule"


def resolve(
    config: Mapping[str, Any],
    overrides: Sequence[Mapping[str, Any]] = (),
    *,
    round_number: int,
    client: str = "",
    tags: Collection[str] = (),
    strategy_config: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The configuration of a client in a round: plain JSON, each schedule replaced by its number.

    config, overrides: as `check` accepts them. An override replaces the whole value of a key, however deep it is.
    strategy_config: the settings of the strategy, `Strategy.aggregator.client_config`.
    Raises InvalidPart for a schedule whose plugin is not installed any more.

    >>> halved = {"$schedule": {"name": "exponential", "initial": 0.8, "factor": 0.5}}
    >>> resolve({"learning_rate": halved}, [{"tags": ["slow"], "set": {"epochs": 1}}], round_number=2, tags=["slow"])
    {'learning_rate': 0.4, 'epochs': 1}
    """
    applied = [override for override in overrides if _applies(override, round_number, client, tags)]
    merged = {**config, **(strategy_config or {})}
    # Sorting is stable.
    for override in sorted(applied, key=_rank):
        merged |= override["set"]
    return {key: _at(value, round_number) for key, value in merged.items()}


def _applies(override: Mapping[str, Any], round_number: int, client: str, tags: Collection[str]) -> bool:
    first, last = override.get("rounds") or (1, None)
    return (
        first <= round_number
        and (last is None or round_number <= last)
        and ("tags" not in override or not set(tags).isdisjoint(override["tags"]))
        and ("clients" not in override or client in override["clients"])
    )


def _rank(override: Mapping[str, Any]) -> int:
    return 2 if "clients" in override else 1 if "tags" in override else 0


def _at(value: Any, round_number: int) -> Any:
    if isinstance(value, Mapping):
        if SCHEDULE in value:
            return schedules.build_spec(value[SCHEDULE]).at(round_number)
        return {key: _at(member, round_number) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_at(member, round_number) for member in value]
    return value
