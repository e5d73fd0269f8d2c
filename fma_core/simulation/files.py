"""The files of a simulation in a temporary folder: canonical and hashed, like those in the server's storage."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from numpy.typing import NDArray

from fma_core.aggregation.strategy import Strategy
from fma_core.arrays.codecs.receive import write_arrays
from fma_core.arrays.codecs.safetensors import read_file
from fma_core.arrays.spec import Arrays, Spec
from fma_core.engine import Folded, ModelFile, UpdateFile, fold
from fma_core.engine.executors import Threads


@dataclass(frozen=True, eq=False)
class Update:
    """An update that waits, or has not arrived yet: its file, its client, its round and its base.

    base: the number of aggregates when its client began; 0 is the model that was given.
    """

    client: str
    round_number: int
    base: int
    file: Path
    num_examples: int
    metrics: dict[str, Any]
    began_s: float
    seconds: float

    @property
    def arrives_s(self) -> float:
        return self.began_s + self.seconds


class Files:
    """Updates, and the aggregates that may still be needed, by their number.

    spec: the arrays of the model; without one, the spec of the first arrays that are written.
    """

    def __init__(self, folder: Path, *, spec: Spec | None) -> None:
        self._folder = folder
        self.spec = spec
        self._models: dict[int, Path] = {}
        self._state: Path | None = None
        self._num_written = 0
        self.num_aggregates = 0

    def write_update(self, arrays: Arrays) -> Path:
        """Write an update. Raises the errors by which the server refuses it: NonFiniteValue, InvalidSpec, TooLarge."""
        return self._write(arrays)

    def write_initial(self, arrays: Arrays) -> None:
        """Write the initial model. Raises as `write_update`, and SpecMismatch."""
        if self.spec is not None:
            self.spec.check(arrays)
        self._models[0] = self._write(arrays)

    @property
    def has_model(self) -> bool:
        return self.num_aggregates in self._models

    def read_model(self) -> dict[str, NDArray[Any]] | None:
        """The newest weights, read-only; None while there are none."""
        if not self.has_model:
            return None
        arrays = read_file(self._models[self.num_aggregates])
        for array in arrays.values():
            array.flags.writeable = False
        return arrays

    def fold(
        self,
        updates: Sequence[Update],
        *,
        strategy: Strategy,
        round_number: int,
        num_clients: int,
    ) -> Folded:
        """Fold these updates, in this order, into the next aggregate. After an AggregationError nothing has changed."""
        spec = cast("Spec", self.spec)  # settled by the first of them
        out, state_out = self._path(), self._path()
        out.touch()
        state_out.touch()
        keeps_state = strategy.state_spec(spec) is not None
        start = self._model(self.num_aggregates) if strategy.reads_start(spec) else None
        reads_bases = strategy.reads_bases(spec)
        try:
            folded = fold(
                [self._row(update, strategy, reads_bases) for update in updates],
                spec=spec,
                strategy=strategy,
                out=out,
                start=start,
                state=None if self._state is None else ModelFile(self._state, "the state before the round"),
                state_out=state_out if keeps_state else None,
                num_clients=num_clients,
                round_number=round_number,
                executor=Threads(),
            )
        except BaseException:
            out.unlink()
            state_out.unlink()
            raise
        self._take(folded, out, state_out)
        return folded

    def drop_updates(self, updates: Sequence[Update]) -> None:
        for update in updates:
            update.file.unlink()

    def drop_models(self, needed: set[int]) -> None:
        """Delete all models but the newest one and those of these numbers."""
        for number in set(self._models) - needed - {self.num_aggregates}:
            self._models.pop(number).unlink()

    def _row(self, update: Update, strategy: Strategy, reads_bases: bool) -> UpdateFile:
        is_newest = update.base == self.num_aggregates
        return UpdateFile(
            update.file,
            update.num_examples,
            f"of client {update.client}",
            base=None if is_newest or not reads_bases else self._model(update.base),
            staleness=self.num_aggregates - update.base,
            client=update.client,
            metrics={name: float(update.metrics[name]) for name in strategy.aggregator.required_metrics},
        )

    def _take(self, folded: Folded, out: Path, state_out: Path) -> None:
        self.num_aggregates += 1
        self._models[self.num_aggregates] = out
        if self._state is not None:
            self._state.unlink()
        self._state = state_out if folded.state is not None else None
        if folded.state is None:
            state_out.unlink()

    def _model(self, number: int) -> ModelFile | None:
        path = self._models.get(number)
        return None if path is None else ModelFile(path, f"model {number}")

    def _write(self, arrays: Arrays) -> Path:
        path = self._path()
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            received = write_arrays(arrays, fd)
        except BaseException:
            path.unlink()
            raise
        finally:
            os.close(fd)
        if self.spec is None:
            self.spec = received.spec
        return path

    def _path(self) -> Path:
        self._num_written += 1
        return self._folder / str(self._num_written)
