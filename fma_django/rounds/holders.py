"""The process that holds a lease, named so that others on its machine can tell whether it still runs (Linux).

A process is known by the boot of its machine, its namespace of process ids (each container has its own), its id and the
time at which it started. Whoever runs elsewhere knows nothing of it and waits until the lease expires.
"""

import os
from pathlib import Path

PROC = Path("/proc")
MOST_DIGITS = 9  # of the id of a process: Linux counts to 2^22, and the system's calls take 31 bits


def this_process() -> str:
    """The name of this process; "" on a system that cannot tell."""
    machine = this_machine()
    started = _started(os.getpid())
    return f"{machine}/{os.getpid()}/{started}" if machine and started else ""


def this_machine() -> str:
    """The first part of the names of all processes that this one can see; "" on a system that cannot tell."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        namespace = (PROC / "self/ns/pid").stat().st_ino
    except OSError:
        return ""
    return f"{boot}/{namespace}"


def has_ended(holder: str) -> bool:
    """Whether the process ran on this machine and runs no more; False for all that cannot be known here."""
    machine, _, process = holder.rpartition("/")[0].rpartition("/")
    if not machine or machine != this_machine() or not process.isdecimal() or len(process) > MOST_DIGITS:
        return False
    started = _started(int(process))
    if not started and _is_hidden(int(process)):
        return False
    return started != holder.rpartition("/")[2]


def _is_hidden(pid: int) -> bool:
    """Whether a process of another user runs that /proc does not show (hidepid)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _started(pid: int) -> str:
    """The time at which a process started, in ticks since the boot; "" when it has ended, also as a zombie."""
    try:
        said = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return ""
    # After the name, which may have spaces and parentheses: the state, and as the 20th the time. Source: proc(5).
    facts = said.rpartition(")")[2].split()
    return "" if facts[0] in "ZX" else facts[19]
