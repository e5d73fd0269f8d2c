"""The check of a client configuration, made when a model is saved."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fma_core.client_config.resolve import SCHEDULE
from fma_core.client_config.schedules import schedules
from fma_core.errors import FMAError, InvalidParameter, InvalidPart

# Every client downloads its configuration in every round.
MAX_CONFIG_BYTES = 64 * 1024
MAX_OVERRIDES_BYTES = 256 * 1024
MAX_OVERRIDES = 1000
MAX_DEPTH = 32

CONFIG = "client_config"
OVERRIDES = "client_config_overrides"
CONDITIONS = ("rounds", "tags", "clients")


def check(config: Mapping[str, Any], overrides: Sequence[Any] = ()) -> None:
    """Check that `resolve` can make a client's configuration of these. Raises InvalidPart, with the fact `field`.

    The message names the place: "client_config_overrides[2].set.learning_rate: …".
    """
    _check_object(config, CONFIG, CONFIG)
    _require_size(config, CONFIG, MAX_CONFIG_BYTES)
    if isinstance(overrides, str) or not isinstance(overrides, Sequence):
        raise _refused(OVERRIDES, OVERRIDES, f"must be a list of overrides, found {overrides!r:.80}")
    if len(overrides) > MAX_OVERRIDES:
        raise _refused(OVERRIDES, OVERRIDES, f"may be {MAX_OVERRIDES} at most, found {len(overrides)}")
    for index, override in enumerate(overrides):
        _check_override(override, f"{OVERRIDES}[{index}]")
    _require_size(overrides, OVERRIDES, MAX_OVERRIDES_BYTES)


def _check_override(override: Any, where: str) -> None:
    known = (*CONDITIONS, "set")
    if not isinstance(override, Mapping) or "set" not in override:
        raise _refused(OVERRIDES, where, f'must be an object with "set", found {override!r:.80}')
    for key in override:
        if key not in known:
            raise _refused(OVERRIDES, where, f"{key!r:.80} is unknown; known are {', '.join(known)}")
    _check_object(override["set"], OVERRIDES, f"{where}.set")
    if "rounds" in override and not _is_range(override["rounds"]):
        raise _refused(
            OVERRIDES,
            f"{where}.rounds",
            "must be [first, last] with 1 ≤ first ≤ last, or [first, null] for all from the first on; "
            f"found {override['rounds']!r:.80}",
        )
    for key in ("tags", "clients"):
        if key in override and not _are_names(override[key]):
            raise _refused(
                OVERRIDES,
                f"{where}.{key}",
                f"must be a list of strings, one or more, found {override[key]!r:.80}",
            )


def _is_range(value: Any) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 2:
        return False
    first, last = value
    return type(first) is int and first >= 1 and (last is None or (type(last) is int and last >= first))


def _are_names(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(name, str) and name for name in value)
    )


def _check_object(value: Any, field: str, where: str) -> None:
    if not isinstance(value, Mapping):
        raise _refused(field, where, f"must be an object, found {value!r:.80}")
    if SCHEDULE in value:
        raise _refused(field, where, f"a {SCHEDULE} stands for the value of a key, not for all of them")
    for key, member in _members(value, field, where):
        _check_value(member, field, f"{where}.{key}", depth=1)


def _check_value(value: Any, field: str, where: str, *, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise _refused(field, where[:200], f"may be nested {MAX_DEPTH} levels deep")
    if isinstance(value, Mapping):
        if SCHEDULE in value:
            _check_schedule(value, field, where)
            return
        for key, member in _members(value, field, where):
            _check_value(member, field, f"{where}.{key}", depth=depth + 1)
    elif isinstance(value, list | tuple):
        for index, member in enumerate(value):
            _check_value(member, field, f"{where}[{index}]", depth=depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise _refused(field, where, f"must be a finite number, found {value}")
    elif value is not None and not isinstance(value, str | bool | int | float):
        raise _refused(field, where, f"must be JSON, found {value!r:.80}")


def _check_schedule(value: Mapping[str, Any], field: str, where: str) -> None:
    if len(value) > 1:
        others = ", ".join(repr(key)[:80] for key in value if key != SCHEDULE)
        raise _refused(field, where, f"beside {SCHEDULE} there can be nothing, found {others:.200}")
    try:
        schedules.build_spec(value[SCHEDULE])
    except InvalidPart as error:
        facts = {**error.facts, "field": field, "where": where}
        raise type(error)(f"{where}: {error.message}", **facts) from error


def _members(value: Mapping[Any, Any], field: str, where: str) -> Iterator[tuple[str, Any]]:
    for key, member in value.items():
        if not isinstance(key, str) or not key or len(key) > 200:
            raise _refused(field, where, f"a key must be a string of 1 to 200 characters, found {key!r:.80}")
        if key.startswith("$"):
            # Reserved, so that other keys can be added later.
            raise _refused(field, where, f"{key!r} is unknown; of keys with $ there is only {SCHEDULE!r}")
        yield key, member


def _require_size(value: Any, field: str, max_bytes: int) -> None:
    try:
        size = len(json.dumps(value, ensure_ascii=False, default=dict).encode())
    except UnicodeEncodeError as error:
        raise _refused(field, field, "may not hold half of a surrogate pair (\\ud800 … \\udfff)") from error
    if size > max_bytes:
        raise _refused(field, field, f"may take {max_bytes} bytes as JSON, found {size}")


def _refused(field: str, where: str, what: str) -> FMAError:
    return InvalidParameter(f"{where}: {what}", kind=CONFIG, parameter=where, field=field, where=where)
