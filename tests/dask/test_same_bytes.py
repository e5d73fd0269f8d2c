"""Serial, threads and a Dask cluster: one answer, to the last bit, however many machines there are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fma_core.aggregation.aggregators import FedExLora, GeometricMedian, Krum, Mean, Median, Scaffold
from fma_core.aggregation.optimisers import FedAdam
from fma_core.aggregation.stages import ClipNorm, Exclude
from fma_core.aggregation.strategy import Strategy
from fma_core.engine import Executor, Serial, Threads
from fma_core.errors import NonFiniteResult, UnreadableUpdate
from fma_django.dask.executor import dask_executor
from fma_django.errors import ClusterUnavailable
from tests.core.rounds import Rounds
from tests.servers.dask import DaskCluster

pytestmark = pytest.mark.processes

NUM_UPDATES = 7
STRATEGIES = {
    "mean": Strategy(Mean()),
    "median": Strategy(Median()),
    "krum": Strategy(Krum(f=2)),
    "geometric median, clipped": Strategy(GeometricMedian(), stages=(ClipNorm(max_norm=300.0),)),
    "fedadam": Strategy(Mean(), optimiser=FedAdam()),
    "scaffold": Strategy(Scaffold()),
    "personal": Strategy(Mean(), stages=(Exclude(patterns=("norm/*",)),)),
}


def model(seed: int) -> dict[str, Any]:
    """Two blocks of columns and more, with gaps between the floats: integers, booleans, half precision."""
    rng = np.random.default_rng(seed)
    return {
        "body/w": rng.normal(size=(150_000,)).astype(np.float32),
        "body/x": rng.normal(size=(3, 1000)),
        "head/half": rng.normal(size=500).astype(np.float16),
        "norm/batches": rng.integers(0, 1000, size=()),
        "norm/is_on": rng.integers(0, 2, size=9).astype(bool),
        "norm/mean": rng.normal(size=64).astype(np.float32),
    }


def sent_of(strategy: Strategy, seed: int) -> list[dict[str, Any]]:
    updates = []
    for number in range(NUM_UPDATES):
        arrays = model(seed + number)
        if strategy.aggregator.payloads:
            floats = [name for name, array in arrays.items() if array.dtype.kind == "f"]
            arrays |= {f"control/{name}": arrays[name] * 0.25 for name in floats}
        updates.append({name: arrays[name] for name in arrays if not _is_personal(name, strategy)})
    return updates


def _is_personal(name: str, strategy: Strategy) -> bool:
    return any(isinstance(stage, Exclude) for stage in strategy.stages) and name.startswith("norm/")


def two_rounds(folder: Path, strategy: Strategy, executor: Executor) -> list[tuple[bytes, bytes]]:
    """The models and states of two rounds, the second of which goes on from the first."""
    folder.mkdir()
    rounds = Rounds(folder, strategy, model(0))
    found = []
    for number in range(2):
        sent = sent_of(strategy, 100 * (number + 1))
        num_examples = [3, 1, 4, 1, 5, 9, 2]
        found.append(rounds.fold(sent, executor=executor, num_examples=num_examples))
        rounds.number += 1
    return found


@pytest.fixture(scope="module")
def dask(cluster: DaskCluster) -> Iterator[Executor]:
    with dask_executor(cluster.address, remote=None, check=lambda: None) as executor:
        yield executor


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_executor_changes_no_bit(name: str, dask: Executor, tmp_path: Path) -> None:
    expected = two_rounds(tmp_path / "serial", STRATEGIES[name], Serial())

    for number, executor in enumerate((Threads(1), Threads(2), Threads(5), dask)):
        assert two_rounds(tmp_path / str(number), STRATEGIES[name], executor) == expected, executor


def test_a_computed_array_is_the_same_too(dask: Executor, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    start = {
        "l.lora_A.weight": rng.normal(size=(4, 300)).astype(np.float32),
        "l.lora_B.weight": rng.normal(size=(400, 4)).astype(np.float32),
        "l.base_layer.weight": rng.normal(size=(400, 300)).astype(np.float32),
    }
    found = []
    for executor in (Serial(), dask):
        folder = tmp_path / type(executor).__name__
        folder.mkdir()
        rounds = Rounds(folder, Strategy(FedExLora()), start)
        update_names = rounds.strategy.update_spec(rounds.spec).by_name
        sent = [{name: start[name] * scale for name in update_names} for scale in (0.5, 1.5, 2.5)]
        found.append(rounds.fold(sent, executor=executor))

    assert found[0] == found[1]


def test_one_worker_gives_what_two_give(cluster: DaskCluster, tmp_path: Path) -> None:
    strategy = STRATEGIES["fedadam"]
    expected = two_rounds(tmp_path / "serial", strategy, Serial())

    with DaskCluster(tmp_path / "one") as other:
        other.start_workers(1)
        with dask_executor(other.address, remote=None, check=lambda: None) as one:
            assert two_rounds(tmp_path / "dask", strategy, one) == expected


def test_errors_come_back_as_themselves(dask: Executor, tmp_path: Path) -> None:
    rounds = Rounds(tmp_path, Strategy(Mean()), {"w": np.zeros(3, np.float32)})
    huge = np.finfo(np.float32).max

    with pytest.raises(NonFiniteResult) as overflowed:
        Rounds(tmp_path, Strategy(Mean(), update_kind="delta"), {"w": np.full(3, huge)}).fold(
            [{"w": np.full(3, huge)}], executor=dask
        )
    assert overflowed.value.facts == {"array": "w"}

    class Losing:
        """Between the server's look at the files and the workers'."""

        def run(self, work: Any, job: Any, num_items: int) -> Iterator[Any]:
            job.updates[1].path.write_bytes(b"cut off")
            return dask.run(work, job, num_items)

    with pytest.raises(UnreadableUpdate, match="must have") as unreadable:
        rounds.fold([{"w": np.ones(3, np.float32)}] * 2, executor=Losing())
    assert unreadable.value.facts == {"label": "#1"}


def test_a_worker_that_does_not_share_the_disk_says_so(dask: Executor, tmp_path: Path) -> None:
    rounds = Rounds(tmp_path, Strategy(Mean()), {"w": np.zeros(3, np.float32)})

    class Elsewhere:
        def run(self, work: Any, job: Any, num_items: int) -> Iterator[Any]:
            job.out.path.unlink()
            return dask.run(work, job, num_items)

    with pytest.raises(ClusterUnavailable, match="must be on a disk that all machines share"):
        rounds.fold([{"w": np.ones(3, np.float32)}], executor=Elsewhere())


def test_a_worker_of_another_version_is_not_used(
    dask: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = Rounds(tmp_path, Strategy(Mean()), {"w": np.zeros(3, np.float32)})
    monkeypatch.setattr("fma_django.dask.batch.versions", lambda: {"fma": "9.9"})

    with pytest.raises(ClusterUnavailable, match="they must be the same"):
        rounds.fold([{"w": np.ones(3, np.float32)}], executor=dask)
