"""Consecutive rounds through real files, as the server plays them: each starts from what the last one published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fma_core.aggregation.strategy import Strategy
from fma_core.arrays.codecs.safetensors import encode, read_file
from fma_core.arrays.spec import Spec
from fma_core.engine import ModelFile, Serial, UpdateFile, fold
from tests.core.weights import Arrays


class Rounds:
    """A model and its state, published round after round. Round 0 is the model that everything starts from."""

    def __init__(
        self, folder: Path, strategy: Strategy, start: Arrays, num_clients: int | None = None
    ) -> None:
        self.folder = folder
        self.strategy = strategy
        self.spec = Spec.of(start)
        self.num_clients = num_clients
        self.number = 0
        self._model_path(0).write_bytes(encode(start))

    @property
    def model(self) -> Arrays:
        return read_file(self._model_path(self.number))

    @property
    def state(self) -> Arrays:
        """The state that the strategy keeps; empty before the first round."""
        path = self._state_path(self.number)
        return read_file(path) if path.exists() else {}

    def play(self, sent: Sequence[Arrays], **facts: Any) -> Arrays:
        """Fold a round and publish it; `facts` as of `updates` and `fold`."""
        self.fold(sent, **facts)
        self.number += 1
        return self.model

    def fold(
        self,
        sent: Sequence[Arrays],
        *,
        num_examples: Sequence[int] | None = None,
        metrics: Mapping[str, Sequence[float]] | None = None,
        bases: Sequence[int] | None = None,
        staleness: Sequence[int] | None = None,
        clients: Sequence[str] | None = None,
        **options: Any,
    ) -> tuple[bytes, bytes]:
        """The bytes of the next model and state; published only by `play`.

        bases: the rounds whose models the updates were trained from; how stale they are follows, unless it is given.
        """
        updates = self._store(sent, metrics or {}, bases)
        for i, update in enumerate(updates):
            updates[i] = replace(
                update,
                num_examples=update.num_examples if num_examples is None else num_examples[i],
                staleness=update.staleness if staleness is None else staleness[i],
                client=update.client if clients is None else clients[i],
            )
        out, state_out = self._model_path(self.number + 1), self._state_path(self.number + 1)
        out.write_bytes(b"rubbish of an attempt that failed")
        if self.strategy.states:
            state_out.write_bytes(b"rubbish")
        state = self._state_path(self.number)
        fold(
            updates,
            spec=self.spec,
            strategy=self.strategy,
            start=self._model_file(self.number),
            state=ModelFile(state, f"state {self.number}") if state.exists() else None,
            out=out,
            state_out=state_out if self.strategy.states else None,
            round_number=self.number + 1,
            **{"executor": Serial(), "num_clients": self.num_clients, **options},
        )
        return out.read_bytes(), state_out.read_bytes() if self.strategy.states else b""

    def _store(
        self,
        sent: Sequence[Arrays],
        metrics: Mapping[str, Sequence[float]],
        bases: Sequence[int] | None,
    ) -> list[UpdateFile]:
        updates = []
        for i, arrays in enumerate(sent):
            path = self.folder / f"update-{i}"
            path.write_bytes(encode(arrays))
            updates.append(
                UpdateFile(
                    path,
                    1,
                    f"#{i}",
                    base=None if bases is None else self._model_file(bases[i]),
                    staleness=0 if bases is None else self.number - bases[i],
                    client=f"client-{i}",
                    metrics={name: values[i] for name, values in metrics.items()},
                )
            )
        return updates

    def _model_file(self, number: int) -> ModelFile:
        return ModelFile(self._model_path(number), f"round {number}")

    def _model_path(self, number: int) -> Path:
        return self.folder / f"model-{number}"

    def _state_path(self, number: int) -> Path:
        return self.folder / f"state-{number}"


def normal(seed: int, *shape: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(seed).normal(size=shape)


def case_id(value: object) -> str:
    """The id of a test's parameter: the same in every process, which a function's address is not."""
    return str(getattr(value, "__name__", value))
