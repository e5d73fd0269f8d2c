"""`simulate`: an experiment in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fma_core.arrays.spec import Arrays
from fma_core.simulation.client import SimulatedClient
from fma_core.simulation.configuration import Configuration
from fma_core.simulation.experiment import Experiment, Setting
from fma_core.simulation.files import Files
from fma_core.simulation.progress import Watcher
from fma_core.simulation.result import Simulation

# So early that the clock never reaches the end date of a real experiment, unless `begins_on` is set.
BEGINS_ON = datetime(2000, 1, 1, tzinfo=UTC)


def simulate(
    configuration: Mapping[str, Any],
    clients: Sequence[SimulatedClient],
    *,
    rounds: int,
    initial: Arrays | None = None,
    seed: int | None = None,
    evaluate: Callable[[Arrays], Mapping[str, float]] | None = None,
    executor: Executor | None = None,
    progress: Watcher | None = None,
    begins_on: datetime = BEGINS_ON,
) -> Simulation:
    """Run an experiment's whole configuration with clients that are functions.

    A server with the same seed and ids, whose clients send the same updates in the same order, selects the same
    clients, applies the same rules, and gives aggregates with the same digests. Only time is simulated: the clock jumps
    from one arrival or deadline to the next.

    configuration: the members that a developer sends to `POST models/`. rounds: the largest number of rounds.
    initial: the first weights. Without them clients get None, and the strategy must be able to begin without weights.
    seed: the seed of the selection; None for the configuration's, or 0.
    evaluate: called with the weights of each aggregate. Its numbers are the metric_source `validation`.
    executor: trains several clients at a time; a ProcessPoolExecutor needs `train` to pickle. No result depends on it.
    progress: called with a `Progress` from time to time; `progress_bar()` gives such a function.
    begins_on: the date at which the virtual clock starts, for the round policy's `end_date`.
    Raises InvalidPart, InvalidStrategy or InvalidSpec for a configuration that the server refuses, ValueError for two
    clients with one id, and the errors of `train` and `evaluate`.

    >>> import numpy as np
    >>> from fma_core.simulation import SimulatedClient, Trained
    >>> def train(weights, config, round_number):
    ...     return Trained({"w": weights["w"] + 1.0})
    >>> clients = [SimulatedClient(name, train) for name in ("ann", "bob")]
    >>> initial = {"w": np.array([0.0])}
    >>> simulate({"requirement": "all_clients"}, clients, rounds=3, initial=initial).arrays["w"]
    array([3.])
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, found {rounds}")
    read = Configuration.of(configuration, seed=seed)
    setting = Setting(
        read,
        _by_id(clients),
        num_rounds=rounds,
        evaluate=evaluate,
        executor=executor,
        progress=progress,
        begins_on=begins_on,
    )
    with TemporaryDirectory(prefix="fma-simulate-") as folder:
        return Experiment(setting, Files(Path(folder), spec=read.spec), initial).run()


def _by_id(clients: Sequence[SimulatedClient]) -> dict[str, SimulatedClient]:
    ordered = sorted(clients, key=lambda client: client.id)
    by_id = {client.id: client for client in ordered}
    if len(by_id) != len(ordered):
        ids = [client.id for client in ordered]
        twice = next(name for name, following in pairwise(ids) if name == following)
        raise ValueError(f"two clients have the id {twice!r}")
    return by_id
