"""Facts about this device that identify nobody, from the operating system alone.

They are the facts that docs/reference/telemetry.md lists: no host name, user, path or address. Unknown facts are left
out.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fma_connect.version import __version__

__all__ = ["SECTIONS", "Facts", "facts_of_this_device"]

Facts = dict[str, dict[str, Any]]
FoundT = TypeVar("FoundT")

SECTIONS = ("device", "system", "resources", "connectivity", "versions")
POWER_SUPPLIES = Path("/sys/class/power_supply")
MEMORY = Path("/proc/meminfo")
WORDS = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+()-]{0,63}")
TWO_NUMBERS = re.compile(r"\d+(\.\d+)?")


def facts_of_this_device() -> Facts:
    """The facts of this device by section and field, as the server accepts them."""
    total, free = _memory()
    battery, is_charging = _power()
    facts: Facts = {
        "device": {"machine": _words(platform.machine())},
        "system": {"name": _words(platform.system()), "version": _two_numbers(_system_version())},
        "resources": {
            "num_cpus": _num_cpus(),
            "memory_bytes": total,
            "free_memory_bytes": free,
            "free_disk_bytes": _or_none(lambda: shutil.disk_usage(".").free),
            "load": _or_none(lambda: os.getloadavg()[0]),
            "battery": battery,
            "is_charging": is_charging,
        },
        "versions": {
            "client": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
    }
    return {
        section: {name: value for name, value in fields.items() if value is not None}
        for section, fields in facts.items()
    }


def _or_none(find: Callable[[], FoundT]) -> FoundT | None:
    try:
        return find()
    except (OSError, AttributeError, ValueError):
        return None


def _words(text: str) -> str | None:
    return text if WORDS.fullmatch(text) else None


def _two_numbers(text: str) -> str | None:
    # The rest of the version may name a build of one organisation.
    match = TWO_NUMBERS.match(text)
    return match[0] if match else None


def _system_version() -> str:
    return platform.mac_ver()[0] or platform.release()


def _num_cpus() -> int | None:
    with suppress(AttributeError, OSError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _memory() -> tuple[int | None, int | None]:
    """The total memory and the available memory, in bytes."""
    with suppress(OSError, ValueError, KeyError):
        lines = (line.split() for line in MEMORY.read_text().splitlines())
        kilobytes = {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1}
        return kilobytes["MemTotal"] * 1024, kilobytes["MemAvailable"] * 1024
    with suppress(Exception):  # psutil may raise anything on an unknown system
        memory = importlib.import_module("psutil").virtual_memory()
        return int(memory.total), int(memory.available)
    return None, None


def _power() -> tuple[float | None, bool | None]:
    """The level of the battery, 0 to 1, and whether the device is connected to power."""
    with suppress(OSError, ValueError):
        batteries = [supply for supply in _supplies() if _read(supply / "type") == "Battery"]
        if batteries:
            left = sum(int(_read(battery / "capacity")) for battery in batteries) / len(batteries) / 100
            states = {_read(battery / "status") for battery in batteries}
            return min(max(left, 0.0), 1.0), "Discharging" not in states
        if POWER_SUPPLIES.exists():
            return None, None
    with suppress(Exception):
        battery = importlib.import_module("psutil").sensors_battery()
        if battery is not None:
            return min(max(battery.percent / 100, 0.0), 1.0), battery.power_plugged
    return None, None


def _supplies() -> Iterator[Path]:
    for supply in sorted(POWER_SUPPLIES.iterdir()) if POWER_SUPPLIES.exists() else ():
        scope = supply / "scope"
        if not scope.exists() or _read(scope) != "Device":  # a mouse has a battery too
            yield supply


def _read(file: Path) -> str:
    return file.read_text().strip()
