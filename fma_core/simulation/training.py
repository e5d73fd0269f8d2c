"""Training of many clients: in this thread, or by an executor, a few clients in advance."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from typing import Any

from fma_core.arrays.spec import Arrays
from fma_core.simulation.client import SimulatedClient, Trained

# The largest number of answers in memory at a time.
AHEAD = 16

Task = tuple[SimulatedClient, Mapping[str, Any]]
Answer = tuple[SimulatedClient, Trained | None]


def train_all(
    tasks: Iterable[Task], weights: Arrays | None, round_number: int, executor: Executor | None
) -> Iterator[Answer]:
    """The answer of each client, in the order of the tasks. An error of a client is raised with its id as a note."""
    if executor is None:
        for client, config in tasks:
            with _Noted(client, round_number):
                trained = client.train(weights, config, round_number)
            yield client, _checked(client, trained)
        return
    waiting: deque[tuple[SimulatedClient, Future[Trained | None]]] = deque()
    try:
        for client, config in tasks:
            if len(waiting) >= AHEAD:
                yield _result(*waiting.popleft(), round_number)
            # Not the whole client: a process that trains needs only the function.
            waiting.append((client, executor.submit(client.train, weights, config, round_number)))
        while waiting:
            yield _result(*waiting.popleft(), round_number)
    finally:
        for _, future in waiting:
            future.cancel()


def _result(client: SimulatedClient, future: Future[Trained | None], round_number: int) -> Answer:
    with _Noted(client, round_number):
        trained = future.result()
    return client, _checked(client, trained)


def _checked(client: SimulatedClient, trained: object) -> Trained | None:
    if trained is None or isinstance(trained, Trained):
        return trained
    raise TypeError(f"train of client {client.id!r} must return Trained or None, found {trained!r:.80}")


class _Noted:
    def __init__(self, client: SimulatedClient, round_number: int) -> None:
        self._note = f"while client {client.id!r} trained for round {round_number}"

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            error.add_note(self._note)
