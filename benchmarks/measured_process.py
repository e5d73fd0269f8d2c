"""A process for one way: it runs when it is told to, and says how long it took and what memory it held at most."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cases import Case
from ways import Way, contender

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"
# Imported once and forked: a process for each of some hundred ways then costs milliseconds. With numba too: the engine
# uses numpy's kernels in a process that is forbidden to import it.
PRELOADED = [
    "numpy",
    "safetensors.numpy",
    "fma_core.engine",
    "fma_core.aggregation.aggregators",
    "numba",
    "flwr.server.strategy",
]


@dataclass(frozen=True)
class Run:
    """cpu_seconds: of all threads.

    peak_bytes: beyond what the process had after a tiny run of the same way; None where Linux does not say.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int | None


class MeasuredProcess:
    """Raises RuntimeError, with the process's own traceback, when a way fails."""

    def __init__(self, way: Way, case: Case, *, warm_up: Case) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self.way = way
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, way, case, warm_up), daemon=True)
        self._process.start()
        theirs.close()

    def wait(self) -> Any:
        try:
            answer = self._connection.recv()
        except EOFError:
            raise RuntimeError(f"the process of {self.way} ended") from None
        if isinstance(answer, str):
            raise RuntimeError(f"{self.way}: {answer}")
        return answer

    def run(self) -> Run:
        self._connection.send("run")
        found: Run = self.wait()
        return found

    def save(self, path: Path) -> bool:
        self._connection.send(path)
        saved: bool = self.wait()
        return saved

    def close(self) -> None:
        self._connection.close()
        self._process.terminate()
        self._process.join()


def _serve(connection: Connection, way: Way, case: Case, warm_up: Case) -> None:
    try:
        contender(way, warm_up).run()
        _give_back()
        base = _memory("VmRSS")
        made = contender(way, case)
        connection.send(True)
        while True:
            try:
                told = connection.recv()
            except EOFError:
                return
            if told != "run":
                connection.send(made.save(told))
                continue
            _give_back()
            _reset_peak()
            started, cpu_started = time.perf_counter(), time.process_time()
            made.run()
            seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
            peak = _memory("VmHWM")
            beyond = None if peak is None or base is None else max(0, peak - base)
            connection.send(Run(seconds, cpu_seconds, beyond))
    except BrokenPipeError:  # nobody waits for it any more
        return
    except Exception:  # noqa: BLE001 - the parent raises what it is sent
        connection.send(traceback.format_exc())


def _give_back() -> None:
    """Free what can be freed, so that one run's garbage is not the next one's base."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):  # not glibc
        return


def _reset_peak() -> None:
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:  # not Linux, or forbidden: the peak is then that of all runs
        return


def _memory(field: str) -> int | None:
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
