"""Folds of arrays in memory, for tests, notebooks and simulations: the same engine, on temporary files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fma_core.aggregation.aggregators import Aggregator
from fma_core.aggregation.strategy import Strategy
from fma_core.arrays.codecs.safetensors import decode, encode
from fma_core.arrays.spec import Arrays, Spec
from fma_core.engine import Executor, ModelFile, Threads, UpdateFile, UpdateUse, fold


@dataclass(frozen=True, eq=False)
class Update:
    """The arrays that a client sends, and the facts about them; the fields mean the same as in `UpdateFile`."""

    arrays: Arrays
    num_examples: int = 1
    client: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    staleness: int = 0
    base: Arrays | None = None


def fold_arrays(
    strategy: Strategy | Aggregator[Any],
    updates: Sequence[Update | Arrays],
    start: Arrays | None = None,
    *,
    num_clients: int | None = None,
    round_number: int = 1,
    executor: Executor | None = None,
) -> dict[str, NDArray[Any]]:
    """Fold the updates of one round into the next model, as `fold` does with files.

    strategy: a strategy, or a rule alone. updates: arrays alone are an update of one example.
    start: the model before the round; zeros when it is None and the strategy needs one.
    Raises the errors of `fold`, SpecMismatch for arrays that do not match the model, and InvalidParameter for integers
    whose meaning no policy declares.

    >>> from fma_core.aggregation.aggregators import Median
    >>> fold_arrays(Median(), [{"w": np.array([value, 7.0])} for value in (1.0, 2.0, 900.0)])
    {'w': array([2., 7.])}
    """
    with StoredRound(
        strategy, updates, start=start, num_clients=num_clients, round_number=round_number
    ) as stored:
        stored.strategy.check_spec(stored.spec)
        return decode(stored.fold(executor=executor).model)


class ArrayRounds:
    """A model trained over several rounds: each starts from the model and the state of the round before."""

    def __init__(
        self,
        strategy: Strategy | Aggregator[Any],
        start: Arrays | None = None,
        *,
        num_clients: int | None = None,
    ) -> None:
        self._strategy = strategy
        self._num_clients = num_clients
        self.model = start
        self.state: Arrays | None = None
        self.number = 0

    def play(self, updates: Sequence[Update | Arrays], *, executor: Executor | None = None) -> Arrays:
        """Fold one round and return the model after it."""
        with StoredRound(
            self._strategy,
            updates,
            start=self.model,
            state=self.state,
            num_clients=self._num_clients,
            round_number=self.number + 1,
        ) as stored:
            folded = stored.fold(executor=executor)
        self.number += 1
        self.model = decode(folded.model)
        self.state = decode(folded.state) if folded.state else None
        return self.model


@dataclass(frozen=True)
class FoldedBytes:
    """The canonical files that a fold wrote; `state` is empty for a strategy without a state.

    uses: the use that was made of each update, in their order.
    """

    model: bytes
    state: bytes
    uses: tuple[UpdateUse, ...]


class StoredRound:
    """The files of a round in a temporary folder, for any number of folds. Use it in `with`."""

    def __init__(
        self,
        strategy: Strategy | Aggregator[Any],
        updates: Sequence[Update | Arrays],
        *,
        start: Arrays | None = None,
        state: Arrays | None = None,
        num_clients: int | None = None,
        round_number: int = 1,
    ) -> None:
        self.strategy = strategy if isinstance(strategy, Strategy) else Strategy(strategy)
        self._updates = [update if isinstance(update, Update) else Update(update) for update in updates]
        self._start = start
        self._state = state
        self._num_clients = num_clients
        self._round_number = round_number

    def __enter__(self) -> Self:
        self._folder = TemporaryDirectory(prefix="fma-fold-")
        try:
            self._store()
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def fold(self, *, executor: Executor | None = None, block_columns: int | None = None) -> FoldedBytes:
        out, state_out = self._path("model-out"), self._path("state-out")
        out.touch()
        state_out.touch()
        keeps_state = self.strategy.state_spec(self.spec) is not None
        folded = fold(
            self._update_files,
            spec=self.spec,
            strategy=self.strategy,
            out=out,
            start=self._start_file,
            state=self._state_file,
            state_out=state_out if keeps_state else None,
            num_clients=self._num_clients,
            round_number=self._round_number,
            executor=executor or Threads(),
            block_columns=block_columns,
        )
        return FoldedBytes(out.read_bytes(), state_out.read_bytes() if keeps_state else b"", folded.uses)

    def _store(self) -> None:
        self.spec = self._model_spec()
        start = self._start
        if start is None and self.strategy.needs_start:
            start = {array.name: np.zeros(array.shape, array.numpy_dtype) for array in self.spec.arrays}
        self._start_file = self._store_model("start", start)
        self._state_file = self._store_model("state", self._state)
        expected = self.strategy.update_spec(self.spec)
        self._update_files = []
        for index, update in enumerate(self._updates):
            expected.check(update.arrays)
            path = self._path(f"update-{index}")
            path.write_bytes(encode(update.arrays))
            self._update_files.append(
                UpdateFile(
                    path,
                    update.num_examples,
                    f"#{index}",
                    base=self._store_model(f"base-{index}", update.base),
                    staleness=update.staleness,
                    client=update.client,
                    metrics=update.metrics,
                )
            )

    def _model_spec(self) -> Spec:
        if self._start is not None or not self._updates:
            return Spec.of(self._start or {})
        # An update has the payloads beside the arrays that they belong to.
        payloads = tuple(f"{payload}/" for payload in self.strategy.aggregator.payloads)
        sent = Spec.of(self._updates[0].arrays)
        return Spec(tuple(array for array in sent.arrays if not array.name.startswith(payloads)))

    def _store_model(self, name: str, arrays: Arrays | None) -> ModelFile | None:
        if arrays is None:
            return None
        path = self._path(name)
        path.write_bytes(encode(arrays))
        return ModelFile(path, name)

    def _path(self, name: str) -> Path:
        return Path(self._folder.name) / name
