"""Aggregating a round: claim → fold → publish.

May run any number of times, in any number of workers, and die anywhere: only a live lease publishes, and the
publication is one transaction. A file that a dead worker left is swept.
"""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import structlog
from django.db import DatabaseError, OperationalError, connection
from django_q.exceptions import TimeoutException

from fma_core.engine import Folded, UpdateUse
from fma_core.errors import FMAError, UnreadableUpdate
from fma_django import conf
from fma_django.errors import ClusterUnavailable, LeaseLost, WorkersKilled
from fma_django.forwarders.forwarding import ask_to_forward
from fma_django.models import ModelAggregate, ModelUpdate, Round
from fma_django.models.model_update import UpdateStatus
from fma_django.record.weights import spool_file
from fma_django.rounds import claiming, leases, publishing
from fma_django.rounds.folding import Results, fold_round
from fma_django.rounds.leases import Lease
from fma_django.rounds.metrics import merged_metrics
from fma_django.rounds.rows import ids_of
from fma_django.storage import get_store
from fma_django.storage.errors import StorageUnavailable

log = structlog.get_logger(__name__)

MOST_LOGGED = 50


def aggregate_round(round_id: int) -> ModelAggregate | None:
    """Aggregate a round if it is due; None when it is not, when it failed, or when it will be tried again.

    Why a round failed is written on the round.
    """
    started = time.monotonic()
    lease = claiming.claim(round_id)
    if lease is None:
        return None
    try:
        with _kept(lease) as check, spool_file() as weights, spool_file() as state:
            folded, updates = _fold(lease, Results(weights, state), check)
            if folded is None:
                return None
            get_store().put_file(weights, folded.weights.sha256)
            if folded.state is not None:
                get_store().put_file(state, folded.state.sha256)
        uses = {update.pk: use for update, use in zip(updates, folded.uses, strict=True)}
        aggregate = publishing.publish(
            lease, folded.weights, folded.state, metrics=merged_metrics(updates, uses), uses=uses
        )
    except LeaseLost:
        log.warning("lease_lost", **ids_of(lease.claimed))
        return None
    except (StorageUnavailable, ClusterUnavailable, OperationalError, OSError) as error:
        # The store, the cluster, the database or room on the disk may be back soon: the sweep tries again, as long as
        # it takes.
        log.warning("round_postponed", **ids_of(lease.claimed), error=str(error))
        leases.release(lease)
        return None
    except WorkersKilled as error:
        # As when this process itself had died: the lease runs out, and after FMA_MAX_ATTEMPTS that is the end.
        log.error("workers_killed", **ids_of(lease.claimed), error=str(error))
        return None
    except FMAError as error:
        _fail(lease, error.code, error.message)
        return None
    except TimeoutException:
        _fail(lease, "time_limit", "aggregating it took longer than FMA_AGGREGATION_TIMEOUT_SECONDS")
        raise
    except Exception as error:
        # A defect, in a plugin perhaps. Trying again would meet it again, so the round ends and says so.
        log.exception("round_defect", **ids_of(lease.claimed))
        _fail(lease, "internal_error", f"{type(error).__name__}: {error}")
        return None
    verdicts = Counter(use.verdict for use in uses.values())
    if verdicts["rejected"]:
        _log_rejected(lease.claimed, updates, uses)
    log.info(
        "round_published",
        **ids_of(lease.claimed),
        aggregate=aggregate.pk,
        updates=len(uses),
        clipped=verdicts["clipped"],
        rejected=verdicts["rejected"],
        seconds=round(time.monotonic() - started, 3),
    )
    ask_to_forward(aggregate.federated_model_id)
    return aggregate


def _fold(
    lease: Lease, results: Results, check: Callable[[float], None]
) -> tuple[Folded | None, list[ModelUpdate]]:
    """Fold the round's updates into the files of `results`, leaving out, one by one, those that cannot be read.

    None when it failed; and the updates that were used.
    """
    claimed = lease.claimed
    while True:
        running = claimed.model_updates.filter(status=UpdateStatus.RUNNING)
        updates = list(running.select_related("base_aggregate").order_by("pk"))
        spec = claimed.federated_model.array_spec
        if spec is None or not updates:
            _fail(lease, "no_updates", "the round has no update that can be used")
            return None, []
        try:
            return fold_round(claimed, updates, spec, results, check=check), updates
        except UnreadableUpdate as error:
            unusable = int(str(error.facts["label"]))
            log.error("update_unreadable", **ids_of(claimed), update=unusable, error=error.message)
            if not publishing.exclude_update(lease, unusable, error.message):
                _fail(lease, error.code, f"{error.message}; without it the model's requirement is not met")
                return None, []


@contextmanager
def _kept(lease: Lease) -> Iterator[Callable[[float], None]]:
    """Renew the lease from beside the work, which may spend any time in one upload, until the block ends.

    Gives what the work calls now and then: it raises LeaseLost as soon as there is no point in going on.
    """
    is_over, is_lost = threading.Event(), threading.Event()

    def keep() -> None:
        while not is_over.wait(conf.current().lease_s / 3):
            try:
                leases.renew(lease)
            except LeaseLost:
                is_lost.set()
                break
            except DatabaseError as error:  # it may be back for the next turn, before the term is over
                log.warning("renewal_failed", **ids_of(lease.claimed), error=str(error))
            finally:
                connection.close()  # this thread's own, which most rounds never need

    def check(_progress: float) -> None:
        if is_lost.is_set():
            raise LeaseLost(f"the lease of round {lease.round_id} was taken over", round_id=lease.round_id)

    keeper = threading.Thread(target=keep, name=f"lease-{lease.round_id}", daemon=True)
    keeper.start()
    try:
        yield check
    finally:
        is_over.set()
        keeper.join()  # it ends with a renewal that is under way


def _log_rejected(published: Round, updates: Iterable[ModelUpdate], uses: Mapping[int, UpdateUse]) -> None:
    by: dict[str, list[ModelUpdate]] = defaultdict(list)
    for update in updates:
        if uses[update.pk].verdict == "rejected":
            by[uses[update.pk].by].append(update)
    for part, rejected in by.items():
        logged = rejected[:MOST_LOGGED]
        log.warning(
            "updates_rejected",
            **ids_of(published),
            by=part,
            update_ids=[update.pk for update in logged],
            clients=[str(update.client_id) for update in logged],
        )


def _fail(lease: Lease, code: str, detail: str) -> None:
    try:
        publishing.fail(lease, code=code, detail=detail)
    except LeaseLost:
        log.warning("lease_lost", **ids_of(lease.claimed))
