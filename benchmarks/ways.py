"""The ways to aggregate that are compared. Each is made for a case, runs as often as it is told, and saves its result.

What a way does in `__init__` is not timed: Flower's server has the updates as objects in memory when it aggregates, and
the product that Krum is measured by has its matrix.
"""

from __future__ import annotations

import hashlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from cases import ARRAY, BETA, Case
from safetensors.numpy import load_file, save_file

PIECE_BYTES = 256 * 1024  # as the engine reads: it stays in the second-level cache
LIMIT, DIGEST, FMA, GRAM = "limit", "sha256 of a model", "fma", "gram"
FLOWER, FLOWER_RECORDS = "flower", "flower records"
IN_MEMORY = {"mean": ("np.average",), "median": ("np.median",), "trimmed_mean": ("np.sort", "np.median")}
GRAM_RULES = ("krum", "multi_krum", "bulyan", "geometric_median")


@dataclass(frozen=True)
class Way:
    """kind: LIMIT, FMA, one of IN_MEMORY, and so on; kernels: "numpy" or "fast" for FMA."""

    kind: str
    threads: int = 1
    kernels: str = ""

    def __str__(self) -> str:
        name = f"{self.kind} {self.kernels}".strip()
        return f"{name}, {self.threads} thread{'s' if self.threads > 1 else ''}"


class Contender(Protocol):
    def run(self) -> None: ...

    def save(self, path: Path) -> bool:
        """Write the last result as safetensors; False when there is nothing to compare."""


def ways_for(rule: str, num_updates: int, *, cores: int, has_fast: bool, has_flower: bool) -> list[Way]:
    threads = sorted({1, cores})
    ways = [*(Way(LIMIT, count) for count in threads), Way(DIGEST)]
    ways += [Way(FMA, count, kernels) for kernels in kernels_of(has_fast) for count in threads]
    ways += [Way(kind) for kind in IN_MEMORY.get(rule, ())]
    if rule in GRAM_RULES:
        ways.append(Way(GRAM))
    # Flower has no geometric median; its Bulyan makes all distances again for each pick: a quarter of an hour for 100.
    if has_flower and rule != "geometric_median" and (rule != "bulyan" or num_updates <= 20):
        ways.append(Way(FLOWER))
        if rule == "mean":
            ways.append(Way(FLOWER_RECORDS))
    return ways


def kernels_of(has_fast: bool) -> tuple[str, ...]:
    return ("numpy", "fast") if has_fast else ("numpy",)


def contender(way: Way, case: Case) -> Contender:
    if way.kind == LIMIT:
        return ReadOnly(case, way.threads)
    if way.kind == DIGEST:
        return Digest(case)
    if way.kind == FMA:
        return Engine(case, way)
    if way.kind == GRAM:
        return Gram(case)
    if way.kind == FLOWER:
        return FlowerStrategy(case)
    if way.kind == FLOWER_RECORDS:
        return FlowerRecords(case)
    return InMemory(case, way.kind)


class ReadOnly:
    """The limit: reads the bytes of all updates once, and does nothing."""

    def __init__(self, case: Case, threads: int) -> None:
        self._shares = [case.paths[first::threads] for first in range(threads)]

    def run(self) -> None:
        if len(self._shares) == 1:
            self._read(self._shares[0])
        else:
            with ThreadPoolExecutor(len(self._shares)) as pool:
                list(pool.map(self._read, self._shares))

    def save(self, path: Path) -> bool:
        return False

    def _read(self, paths: list[Path]) -> None:
        buffer = bytearray(PIECE_BYTES)
        for path in paths:
            fd = os.open(path, os.O_RDONLY)
            try:
                offset = 0
                while count := os.preadv(fd, [buffer], offset):
                    offset += count
            finally:
                os.close(fd)


class Digest:
    """The digest of the result, which fma stores with it and no other way computes."""

    def __init__(self, case: Case) -> None:
        self._model = case.parent

    def run(self) -> None:
        with self._model.open("rb") as file:
            hashlib.file_digest(file, "sha256")

    def save(self, path: Path) -> bool:
        return False


class Engine:
    """fma: from the files of the updates to the file of the next model, with its digest."""

    def __init__(self, case: Case, way: Way) -> None:
        if way.kernels == "numpy":
            sys.modules["numba"] = None  # type: ignore[assignment]  # as if the extra `fast` were not installed
        from fma_core.aggregation.aggregators import aggregators
        from fma_core.aggregation.strategy import Strategy
        from fma_core.engine import ModelFile, Serial, Threads, UpdateFile

        self._updates = [
            UpdateFile(path, num_examples=count, label=path.stem)
            for path, count in zip(case.paths, case.num_examples, strict=True)
        ]
        self._spec = case.spec
        self._strategy = Strategy(aggregators.build(case.rule, case.parameters))
        self._start = ModelFile(case.parent, "the parent") if case.has_parent else None
        self._executor = Serial() if way.threads == 1 else Threads(way.threads)
        self._out = case.folder / f"result-{os.getpid()}"
        self._out.touch()

    def run(self) -> None:
        from fma_core.engine import fold

        fold(
            self._updates,
            spec=self._spec,
            strategy=self._strategy,
            out=self._out,
            start=self._start,
            executor=self._executor,
        )

    def save(self, path: Path) -> bool:
        path.write_bytes(self._out.read_bytes())
        return True


class InMemory:
    """numpy as one would write it: all updates in one matrix, one call, one file."""

    def __init__(self, case: Case, name: str) -> None:
        self._case = case
        self._name = name
        self._out = case.folder / f"result-{os.getpid()}"

    def run(self) -> None:
        matrix = np.stack([load_file(path)[ARRAY] for path in self._case.paths])
        save_file({ARRAY: self._aggregate(matrix).astype(np.float32)}, self._out)

    def _aggregate(self, matrix: np.ndarray) -> Any:
        if self._name == "np.average":
            return np.average(matrix, axis=0, weights=self._case.num_examples)
        if self._name == "np.median":
            return np.median(matrix, axis=0)
        trim = int(BETA * len(matrix))
        return np.sort(matrix, axis=0)[trim : len(matrix) - trim].mean(axis=0)

    def save(self, path: Path) -> bool:
        path.write_bytes(self._out.read_bytes())
        # A median beside the trimmed mean is there for its time.
        return self._name != "np.median" or self._case.rule == "median"


class Gram:
    """One product of the matrix with its transpose, in float64, by BLAS on one thread."""

    def __init__(self, case: Case) -> None:
        self._matrix = np.empty((case.size.num_updates, case.size.num_columns))
        for row, path in zip(self._matrix, case.paths, strict=True):
            row[:] = load_file(path)[ARRAY]

    def run(self) -> None:
        from fma_core.kernels import one_blas_thread

        with one_blas_thread():
            np.dot(self._matrix, self._matrix.T)

    def save(self, path: Path) -> bool:
        return False


class FlowerStrategy:
    """Flower's strategy: from `Parameters`, the bytes that clients send, to the `Parameters` of the next model."""

    def __init__(self, case: Case) -> None:
        from flwr.common import Code, FitRes, Status, ndarrays_to_parameters

        self._rule = case.rule
        self._strategy = _flower_strategy(case)
        self._results: list[Any] = [
            (
                None,
                FitRes(
                    Status(Code.OK, ""),
                    ndarrays_to_parameters([load_file(path)[ARRAY]]),
                    num_examples,
                    {},
                ),
            )
            for path, num_examples in zip(case.paths, case.num_examples, strict=True)
        ]
        self._parameters: Any = None

    def run(self) -> None:
        self._parameters = None
        # In the second round: it does not warn of metrics that nobody aggregates.
        self._parameters, _ = self._strategy.aggregate_fit(2, list(self._results), [])

    def save(self, path: Path) -> bool:
        from flwr.common import parameters_to_ndarrays

        save_file({ARRAY: parameters_to_ndarrays(self._parameters)[0].astype(np.float32)}, path)
        # Its Multi-Krum weighs by examples: another answer, on purpose.
        return self._rule != "multi_krum"


def _flower_strategy(case: Case) -> Any:
    from flwr.server import strategy

    if case.rule == "mean":
        return strategy.FedAvg()
    if case.rule == "median":
        return strategy.FedMedian()
    if case.rule == "trimmed_mean":
        return strategy.FedTrimmedAvg(beta=BETA)
    if case.rule == "krum":
        return strategy.Krum(num_malicious_clients=case.f)
    if case.rule == "multi_krum":
        return strategy.Krum(num_malicious_clients=case.f, num_clients_to_keep=case.size.num_updates - case.f)
    return strategy.Bulyan(num_malicious_clients=case.f, to_keep=0)


class FlowerRecords:
    """The same mean in Flower's newer interface, which replaces `Parameters` by records of arrays."""

    def __init__(self, case: Case) -> None:
        from flwr.common import Array, ArrayRecord, MetricRecord, RecordDict

        self._records = [
            RecordDict(
                {
                    "arrays": ArrayRecord({ARRAY: Array(load_file(path)[ARRAY])}),
                    "metrics": MetricRecord({"num-examples": num_examples}),
                }
            )
            for path, num_examples in zip(case.paths, case.num_examples, strict=True)
        ]
        self._arrays: Any = None

    def run(self) -> None:
        from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

        self._arrays = None
        self._arrays = aggregate_arrayrecords(self._records, "num-examples")

    def save(self, path: Path) -> bool:
        save_file({ARRAY: self._arrays[ARRAY].numpy().astype(np.float32)}, path)
        return True
