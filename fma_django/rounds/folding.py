"""The arithmetic of a round, from what the record says of it: for its worker, and for whoever wants to verify it."""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fma_core.aggregation.strategy import Strategy
from fma_core.arrays.spec import Spec
from fma_core.engine import Folded, ModelFile, UpdateFile, fold
from fma_core.engine.weight_files import Source
from fma_core.errors import UnreadableModel, UnreadableUpdate
from fma_django.models import ModelArtifact, ModelUpdate, Round
from fma_django.record.queries.aggregates import initial_artifact, lineage
from fma_django.rounds.executors import chosen_executor, reads_in_place
from fma_django.rounds.strategy_state import LABEL, state_before
from fma_django.storage import get_store
from fma_django.storage.errors import BlobCorrupt, BlobMissing
from fma_django.storage.remote_file import RemoteFile


@dataclass(frozen=True)
class Results:
    """The files that a fold writes."""

    weights: Path
    state: Path


def fold_round(
    claimed: Round,
    updates: Sequence[ModelUpdate],
    spec: Spec,
    results: Results,
    *,
    check: Callable[[float], None] = lambda share: None,
) -> Folded:
    """Aggregate these updates as the round was to be, into the files of `results`.

    check: called now and then with a share of the work; what it raises ends the fold.
    Raises UnreadableUpdate for an update that cannot be used, and the other errors of `fma_core.engine.fold`.
    """
    strategy = claimed.build_strategy()
    with _spooled(check) as local, chosen_executor(check) as executor:
        start = None
        # Fetching a model from a remote store for nothing would take time, and that the last one is damaged would end a
        # round that can mend it.
        if strategy.reads_start(spec):
            start = local.model(claimed.start_sha256, "the model before the round")
        bases = _Bases(claimed, start, local, needs_files=strategy.reads_bases(spec))
        rows = [
            UpdateFile(
                path=local.update(update),
                num_examples=update.num_examples,
                label=str(update.pk),
                base=bases.of(update),
                staleness=bases.staleness_of(update),
                client=str(update.client_id),
                metrics=_metrics_of(update, strategy),
            )
            for update in updates
        ]
        attempt = local.results()
        try:
            folded = fold(
                rows,
                spec=spec,
                strategy=strategy,
                out=attempt.weights,
                start=start,
                state=local.model(state_before(claimed, strategy, spec), LABEL),
                state_out=attempt.state,
                num_clients=claimed.num_clients,
                round_number=claimed.number,
                executor=executor,
                progress=check,
            )
        except UnreadableModel as error:
            if error.facts.get("label") in bases.update_of:
                # One update cannot be measured from a base that is damaged; the others can go on without it.
                raise UnreadableUpdate(error.message, label=bases.update_of[error.facts["label"]]) from error
            raise
        os.replace(attempt.weights, results.weights)
        os.replace(attempt.state, results.state)
        return folded


def _metrics_of(update: ModelUpdate, strategy: Strategy) -> dict[str, float]:
    try:
        return {name: float(update.metrics[name]) for name in strategy.aggregator.required_metrics}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        # Refused when it is received, so this is a row that was changed by hand, or a plugin that asks for more now.
        raise UnreadableUpdate(
            f"update {update.pk} must have these numbers among its metrics: "
            f"{', '.join(strategy.aggregator.required_metrics)}",
            label=str(update.pk),
        ) from error


class _Bases:
    """The base of each update, and how long ago it was the newest aggregate."""

    def __init__(
        self, claimed: Round, start: ModelFile | None, local: "_LocalFiles", *, needs_files: bool
    ) -> None:
        self._local = local
        self._start_sha256 = claimed.start_sha256
        self._start = start
        # By the label of a base the first update that was trained from it.
        self.update_of: dict[str, str] = {}
        self._needs_files = needs_files
        self._claimed = claimed

    def staleness_of(self, update: ModelUpdate) -> int:
        if update.base_aggregate_id == self._claimed.parent_id:
            return 0
        if update.base_aggregate_id is None:
            return len(self._ages)
        # A base that was published after this round began would be newer than the newest.
        return self._ages.get(update.base_aggregate_id, 0)

    @cached_property
    def _ages(self) -> dict[int, int]:
        # All aggregates of the model are read for it, and mostly everybody has the newest.
        return {pk: age for age, pk in enumerate(reversed(lineage(self._claimed.parent)))}

    @cached_property
    def _initial(self) -> ModelArtifact | None:
        return initial_artifact(self._claimed.federated_model)

    def of(self, update: ModelUpdate) -> ModelFile | None:
        if not self._needs_files:
            return None
        base = update.base_aggregate if update.base_aggregate_id is not None else self._initial
        if base is None:
            return None
        if base.sha256 == self._start_sha256:
            return self._start
        label = f"the base of update {update.pk}"
        self.update_of[label] = str(update.pk)
        try:
            return self._local.model(base.sha256, label)
        except UnreadableModel as error:
            raise UnreadableUpdate(error.message, label=str(update.pk)) from error


class _LocalFiles:
    """Blobs as files; those of a remote store are spooled once each, unless the executor reads them where they are."""

    def __init__(self, folder: Path, check: Callable[[float], None]) -> None:
        self._folder = folder
        self._check = check

    def results(self) -> Results:
        """Empty files of this attempt's own: another machine may still be writing those of one that was given up."""
        made = Results(self._folder / "weights", self._folder / "state")
        made.weights.touch()
        made.state.touch()
        return made

    def update(self, update: ModelUpdate) -> Path | Source:
        try:
            return self._path(update.sha256)
        except (BlobMissing, BlobCorrupt) as error:
            raise UnreadableUpdate(error.message, label=str(update.pk)) from error

    def model(self, sha256: str, label: str) -> ModelFile | None:
        if not sha256:
            return None
        try:
            return ModelFile(self._path(sha256), label)
        except (BlobMissing, BlobCorrupt) as error:
            raise UnreadableModel(error.message, label=label) from error

    def _path(self, sha256: str) -> Path | Source:
        self._check(0.0)
        store = get_store()
        path = store.local_path(sha256)
        if path is None and reads_in_place():
            size_bytes = store.size_bytes(sha256)
            if size_bytes is None:
                raise BlobMissing(f"blob {sha256} is not in the store", sha256=sha256)
            return RemoteFile(sha256, size_bytes)
        if path is None:
            path = self._folder / f"{sha256}.safetensors"
            if not path.exists():
                store.fetch(sha256, path, self._check)
        return path


@contextmanager
def _spooled(check: Callable[[float], None]) -> Iterator[_LocalFiles]:
    with tempfile.TemporaryDirectory(dir=get_store().spool_dir(), prefix="round-") as folder:
        yield _LocalFiles(Path(folder), check)
