"""The configuration of one client in one round.

Later ones win, key by key: the model's config, what its strategy says (FedProx's mu), and the overrides that hold,
first those by round alone, then those by tag, then those by client; of one kind in the order in which they stand.

An override is {"rounds": [first, last or null], "tags": […], "clients": […], "set": {…}}. It holds where everything
that it names does: a round within both ends, one of the tags, one of the clients. One that names nothing holds always.
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
    """What a client is told in a round: plain JSON, each schedule replaced by its number.

    config, overrides: as `check` accepts them. A key that is set is replaced whole, however deep its value.
    strategy_config: what the strategy says, `Strategy.aggregator.client_config`.
    Raises InvalidPart for a schedule whose plugin is gone.
    """
    holding = [said for said in overrides if _holds(said, round_number, client, tags)]
    found = {**config, **(strategy_config or {})}
    # Sorting is stable.
    for said in sorted(holding, key=_rank):
        found |= said["set"]
    return {key: _at(value, round_number) for key, value in found.items()}


def _holds(said: Mapping[str, Any], round_number: int, client: str, tags: Collection[str]) -> bool:
    first, last = said.get("rounds") or (1, None)
    return (
        first <= round_number
        and (last is None or round_number <= last)
        and ("tags" not in said or not set(tags).isdisjoint(said["tags"]))
        and ("clients" not in said or client in said["clients"])
    )


def _rank(said: Mapping[str, Any]) -> int:
    return 2 if "clients" in said else 1 if "tags" in said else 0


def _at(value: Any, round_number: int) -> Any:
    if isinstance(value, Mapping):
        if SCHEDULE in value:
            return schedules.build_spec(value[SCHEDULE]).at(round_number)
        return {key: _at(member, round_number) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_at(member, round_number) for member in value]
    return value
