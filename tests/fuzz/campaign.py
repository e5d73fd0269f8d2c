"""Many inputs for many targets: each bounded in time, counted by its outcome, and reproducible by its number."""

from __future__ import annotations

import faulthandler
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

ACCEPTED = "accepted"
INPUT_S = 20.0
"""No input may take longer. A parser takes less than a millisecond, and this machine is shared."""
MANY = 200
"""The number of valid inputs with a change of which some must be accepted."""
STUCK_S = 120.0
"""In C no signal is handled: then the process ends, with the stacks of its threads."""
SHOW_EVERY_S = 5.0


class Fault(Exception):
    """Something that must not be, found without an exception of the server's own."""


@dataclass(frozen=True)
class Target:
    """A reader of inputs.

    name: `kind/what`. make: an input. feed: gives it to the reader and returns the outcome; raises for a fault.
    share: of the inputs, beside the other targets' shares.
    """

    name: str
    make: Callable[[Random], Any]
    feed: Callable[[Any], str]
    share: float = 1.0

    @property
    def kind(self) -> str:
        return self.name.partition("/")[0]


@dataclass
class Report:
    """The outcomes of each target's inputs, and the faults."""

    seed: int
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    """By where they were raised: of each kind all numbers, the first with its input and its stack."""
    grown_mib: float = 0.0

    @property
    def num_inputs(self) -> int:
        return sum(count.total() for count in self.outcomes.values())

    @property
    def shallow(self) -> list[str]:
        """The targets that took none of many inputs: what is refused at once tests nothing behind the first check."""
        return [
            name
            for name, outcomes in self.outcomes.items()
            if outcomes.total() >= MANY
            and not any(outcome == ACCEPTED or outcome.startswith("2") for outcome in outcomes)
        ]

    def __str__(self) -> str:
        lines = [
            f"{self.num_inputs} inputs, seed {self.seed}: {sum(map(len, self.faults.values()))} faults of "
            f"{len(self.faults)} kinds; memory grew by {self.grown_mib:.0f} MiB",
        ]
        for name, outcomes in self.outcomes.items():
            total = outcomes.total()
            common = ", ".join(f"{what} {count}" for what, count in outcomes.most_common(12))
            each_us = self.seconds[name] / max(total, 1) * 1e6
            lines.append(f"{name:24} {total:7} × {each_us:5.0f} µs, {len(outcomes)} outcomes: {common}")
        for place, found in self.faults.items():
            lines.append(f"\n{len(found)} FAULTS at {place}:\n{found[0]}")
        if self.shallow:
            lines.append(f"\nNOTHING was accepted by {', '.join(self.shallow)}")
        return "\n".join(lines)


def shares(targets: Sequence[Target], num_inputs: int) -> dict[str, int]:
    """The number of inputs for each target, `num_inputs` together."""
    whole = sum(target.share for target in targets)
    numbers = {target.name: int(num_inputs * target.share / whole) for target in targets}
    numbers[targets[0].name] += num_inputs - sum(numbers.values())
    return numbers


def run(
    targets: Sequence[Target],
    num_inputs: int,
    *,
    seed: int,
    only_number: int | None = None,
    failures: Path | None = None,
    look: Callable[[], object] = int,
    look_every: int = 10**9,
) -> Report:
    """Feed `num_inputs` in all, or the one of this number to each target.

    failures: the folder for inputs that fail. look: called after every `look_every` inputs, and at the end; raises for
    what the inputs before have broken.
    """
    report = Report(seed)
    shown_at = time.monotonic()
    peak_kib, fed = _peak_kib(), 0
    faulthandler.dump_traceback_later(STUCK_S, exit=True)
    for target in targets:
        outcomes = report.outcomes[target.name] = Counter()
        started = time.process_time()
        count = shares(targets, num_inputs)[target.name]
        for number in range(count) if only_number is None else (only_number,):
            random = Random(f"{seed}/{target.name}/{number}")
            made: Any = None
            try:
                with _bounded():
                    made = target.make(random)
                    outcome = target.feed(made)
            except Exception as error:  # noqa: BLE001 - any is a fault
                outcome = f"FAULT {type(error).__name__}"
                found = _written_down(target, number, seed, made, error, failures)
                report.faults.setdefault(_place(error), []).append(found)
            outcomes[outcome] += 1
            fed += 1
            if fed % look_every == 0 or fed == num_inputs:
                try:
                    look()
                except Exception as error:  # noqa: BLE001 - any is a fault
                    found = _written_down(target, number, seed, f"after {fed} inputs", error, failures)
                    report.faults.setdefault(_place(error), []).append(found)
            if time.monotonic() - shown_at > SHOW_EVERY_S:
                shown_at = time.monotonic()
                faulthandler.dump_traceback_later(STUCK_S, exit=True)
                print(f"{target.name}: {number + 1} of {count}", file=sys.stderr, flush=True)
        report.seconds[target.name] = time.process_time() - started
    faulthandler.cancel_dump_traceback_later()
    report.grown_mib = (_peak_kib() - peak_kib) / 1024
    return report


def _written_down(
    target: Target, number: int, seed: int, made: Any, error: Exception, failures: Path | None
) -> str:
    stack = "".join(traceback.format_exception(error))
    again = f"python -m tests.fuzz --seed {seed} --only '{target.name}' --number {number}"
    if failures is not None:
        failures.mkdir(parents=True, exist_ok=True)
        name = f"{target.name.replace('/', '-')}-{seed}-{number}.txt"
        (failures / name).write_text(f"{again}\n\n{made!r}\n\n{stack}", errors="backslashreplace")
    return f"{again}\n{repr(made)[:2000]}\n{stack[-1500:]}"


def _place(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    what = f" {error}" if isinstance(error, Fault) else ""
    return f"{type(error).__name__}{what[:80]} in {last.filename}:{last.lineno}"


@contextmanager
def _bounded() -> Iterator[None]:
    """Raise Fault in this thread when it takes too long."""
    signal.setitimer(signal.ITIMER_REAL, INPUT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def prepare_bounds() -> None:
    """Let inputs that take too long be faults."""

    def end(*_: object) -> None:
        raise Fault(f"it took longer than {INPUT_S:g} s")

    signal.signal(signal.SIGALRM, end)


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
