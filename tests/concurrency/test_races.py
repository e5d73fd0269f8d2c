"""Many at once, on whatever database the run uses: one wins, nothing is lost, nothing counts twice."""

import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction

from fma_django.clients.registration import revoke_client
from fma_django.errors import NotRegistered, Refused
from fma_django.experiments.artifacts import publish_aggregate
from fma_django.experiments.changes import change_federated_model, delete_federated_model
from fma_django.models import Client, FederatedModel, ModelUpdate, Round
from fma_django.models.model_update import UpdateStatus
from fma_django.record.configuration import as_configured, record_version
from fma_django.record.weights import JsonBody
from fma_django.rounds import claiming, leases, publishing
from fma_django.rounds.aggregation import aggregate_round
from fma_django.rounds.rows import lock_open_round
from fma_django.rounds.waiting_updates import drop_updates_that_no_longer_count
from fma_django.storage.disk import DiskStore
from fma_django.updates.intake import UpdateFacts
from tests.api.conftest import storage  # noqa: F401  # autouse
from tests.records import make_aggregate, make_client, make_model, received, send_body, send_update, weights

pytestmark = pytest.mark.django_db(transaction=True)


def all_at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Start all calls together, each in a thread with its own connection; list their results or errors."""
    start = threading.Barrier(len(calls))
    results: list[Any] = [None] * len(calls)

    def run(number: int, call: Callable[[], Any]) -> None:
        start.wait()
        try:
            results[number] = call()
        except Exception as error:  # noqa: BLE001 - an error is a result here
            results[number] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(number, call)) for number, call in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def due_round(model: FederatedModel, count: int) -> Round:
    for _ in range(count):
        send_update(model, make_client(model).client)
    return model.rounds.get(state="collecting")


def test_of_two_workers_that_race_for_a_round_one_wins() -> None:
    model = make_model(requirement="require_x_updates", requirement_args=[3])
    due = due_round(model, 3)
    results = all_at_once(*[partial(claiming.claim, due.pk)] * 6)
    assert [isinstance(result, leases.Lease) for result in results].count(True) == 1
    assert [result for result in results if isinstance(result, Exception)] == []


def test_workers_that_race_through_a_whole_aggregation_make_one_aggregate() -> None:
    model = make_model(requirement="require_x_updates", requirement_args=[3])
    due = due_round(model, 3)
    results = all_at_once(*[partial(aggregate_round, due.pk)] * 4)
    assert [result for result in results if result is not None] == [model.aggregates.get()]
    assert model.model_updates.filter(status=UpdateStatus.COMPLETE).count() == 3


def test_updates_that_arrive_together_are_all_counted() -> None:
    model = make_model(initial_model=weights(), requirement="require_x_updates", requirement_args=[8])
    people = [make_client(model).client for _ in range(8)]
    results = all_at_once(*[partial(send_update, model, client) for client in people])
    assert all(isinstance(result, ModelUpdate) for result in results), results
    assert model.rounds.get().num_updates == 8
    assert claiming.claim(model.rounds.get().pk) is not None


def test_an_update_that_races_with_the_claim_is_in_one_round_or_the_next() -> None:
    model = make_model(initial_model=weights(), requirement="require_x_updates", requirement_args=[2])
    for _ in range(5):
        due = due_round(model, 2)
        late = make_client(model).client
        aggregate, update = all_at_once(partial(aggregate_round, due.pk), partial(send_update, model, late))
        assert isinstance(update, ModelUpdate), update
        update.refresh_from_db()
        if update.round_id == due.pk:
            assert (update.status, update.applied_aggregate) == (UpdateStatus.COMPLETE, aggregate)
        else:
            assert (update.status, update.round.state) == (UpdateStatus.PENDING, "collecting")
            publishing.cancel(model.rounds.get(state="collecting"))


def test_a_claim_that_waited_for_a_publication_starts_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(initial_model=weights(), optimiser={"name": "sgd"})
    lease = claiming.claim(due_round(model, 1).pk)
    assert lease is not None
    following = due_round(model, 1)
    under_way = threading.Event()

    def drop_slowly(*args: Any) -> None:
        under_way.set()
        time.sleep(0.5)
        drop_updates_that_no_longer_count(*args)

    def claim() -> leases.Lease | None:
        assert under_way.wait(20)
        return claiming.claim(following.pk)

    monkeypatch.setattr(publishing, "drop_updates_that_no_longer_count", drop_slowly)
    aggregate, claimed = all_at_once(
        partial(publishing.publish, lease, received("a" * 64, 1), metrics={}, uses={}), claim
    )
    following.refresh_from_db()
    assert isinstance(claimed, leases.Lease), claimed
    assert (following.parent, following.start_sha256) == (aggregate, aggregate.sha256)


def test_a_claim_that_waited_for_a_change_of_the_model_uses_it() -> None:
    model = make_model(initial_model=weights())
    due = due_round(model, 1)
    changing = threading.Event()

    def change() -> None:
        with transaction.atomic():
            lock_open_round(model)
            changing.set()
            time.sleep(0.5)
            FederatedModel.objects.filter(pk=model.pk).update(aggregator="median")
            changed = record_version(FederatedModel.objects.get(pk=model.pk))
            Round.objects.filter(pk=due.pk).update(config_version=changed)

    def claim() -> leases.Lease | None:
        assert changing.wait(20)
        return claiming.claim(due.pk)

    all_at_once(change, claim)
    due.refresh_from_db()
    assert due.strategy is not None
    assert due.strategy["aggregator"]["name"] == "median"


def test_a_strategy_that_changes_while_updates_arrive_never_meets_those_of_the_former() -> None:
    strategies: list[dict[str, Any]] = [
        {"aggregator": "qfedavg"},
        {"aggregator": "mean", "update_kind": "delta"},
        {"aggregator": "mean", "stages": [{"name": "exclude", "patterns": ["b"]}]},
    ]
    for changes in strategies:
        model = make_model(initial_model=weights(), requirement="require_x_updates", requirement_args=[9])
        people = [make_client(model).client for _ in range(3)]
        same = FederatedModel.objects.get(pk=model.pk)
        results = all_at_once(
            partial(change_federated_model, same, changes),
            *[partial(send_update, model, client) for client in people],
        )
        assert isinstance(results[0], FederatedModel), results[0]
        # Sent as deltas from the start, for all that the server can know: what it asked for before is not waiting.
        waiting = model.model_updates.filter(status=UpdateStatus.PENDING)
        current = model.rounds.get()
        assert current.num_updates == waiting.count()
        # An update that came first keeps the round, and those after it, as they were.
        if "update_kind" not in changes and as_configured(current).configuration == same.configuration:
            assert not waiting.exists()


def test_a_client_that_sends_twice_at_once_counts_once() -> None:
    model = make_model(initial_model=weights(), requirement="require_x_updates", requirement_args=[5])
    ann = make_client(model).client
    all_at_once(*[partial(send_update, model, ann, weights(value)) for value in (1.0, 2.0, 3.0)])
    assert model.rounds.get().num_updates == 1
    assert model.model_updates.filter(status=UpdateStatus.PENDING).count() == 1


def test_the_first_updates_of_a_model_agree_on_its_spec() -> None:
    model = make_model(requirement="require_x_updates", requirement_args=[5])
    people = [make_client(model).client for _ in range(4)]
    bodies = [[1.0, 2.0], [1.0, 2.0, 3.0], [1.0, 2.0], [1.0, 2.0, 3.0]]
    results = all_at_once(
        *[
            lambda c=client, b=body: send_update(model, c, b)
            for client, body in zip(people, bodies, strict=True)
        ]
    )
    taken = {update.size_bytes for update in results if isinstance(update, ModelUpdate)}
    assert len(taken) == 1
    assert [isinstance(result, ModelUpdate) for result in results].count(True) == 2


def test_one_idempotency_key_used_at_once_makes_one_update() -> None:
    model = make_model(initial_model=weights(), requirement="require_x_updates", requirement_args=[5])
    ann = make_client(model).client

    def send() -> ModelUpdate:
        return send_body(model, ann, JsonBody(weights()), UpdateFacts(), idempotency_key="k")

    results = all_at_once(*[send] * 4)
    assert len({getattr(result, "pk", result) for result in results}) == 1


def test_a_version_published_twice_at_once_is_taken_by_one() -> None:
    model = make_model()
    aggregate = make_aggregate(model)
    results = all_at_once(*[partial(publish_aggregate, aggregate, "2.0.0")] * 3)
    assert [type(result).__name__ for result in results].count("ModelArtifact") == 1
    assert [type(result).__name__ for result in results].count("VersionTaken") == 2


def test_resuming_while_the_last_update_arrives_loses_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        asked: list[int] = []
        monkeypatch.setattr("fma_django.queue.aggregate", asked.append)
        model = make_model(initial_model=weights(), allow_aggregation=False)
        ann: Client = make_client(model).client
        same = FederatedModel.objects.get(pk=model.pk)
        all_at_once(
            partial(send_update, model, ann),
            partial(change_federated_model, same, {"allow_aggregation": True}),
        )
        assert asked, "nobody asked for the aggregation of a round that is due"


def test_changing_a_model_while_it_is_published_keeps_both() -> None:
    for number in range(5):
        model = make_model()
        aggregate = make_aggregate(model)
        same = FederatedModel.objects.get(pk=model.pk)
        artifact, changed = all_at_once(
            partial(publish_aggregate, aggregate, f"1.0.{number}"),
            partial(change_federated_model, same, {"name": "renamed"}),
        )
        model.refresh_from_db()
        assert (model.name, model.current_artifact) == ("renamed", artifact), changed


def test_the_first_update_and_a_change_of_its_model_do_not_wait_for_each_other() -> None:
    for _ in range(5):
        model = make_model(requirement="require_x_updates", requirement_args=[5])
        ann = make_client(model).client
        same = FederatedModel.objects.get(pk=model.pk)
        update, changed = all_at_once(
            partial(send_update, model, ann), partial(change_federated_model, same, {"name": "renamed"})
        )
        model.refresh_from_db()
        assert isinstance(update, ModelUpdate), update
        assert (changed.name, model.name) == ("renamed", "renamed")
        assert model.spec is not None


def test_a_client_that_is_revoked_while_it_sends_does_not_count() -> None:
    for _ in range(5):
        model = make_model(initial_model=weights(), requirement="require_x_updates", requirement_args=[5])
        ann = make_client(model).client
        sent, _revoked = all_at_once(partial(send_update, model, ann), partial(revoke_client, ann))
        assert isinstance(sent, ModelUpdate | NotRegistered), sent
        assert not model.model_updates.filter(status=UpdateStatus.PENDING).exists()
        assert model.rounds.get().num_updates == 0


def test_a_model_can_be_deleted_while_everybody_works_on_it() -> None:
    for _ in range(5):
        model = make_model(initial_model=weights(), requirement="require_x_updates", requirement_args=[2])
        due = due_round(model, 2)
        people = [make_client(model).client for _ in range(3)]
        results = all_at_once(
            partial(delete_federated_model, FederatedModel.objects.get(pk=model.pk)),
            partial(aggregate_round, due.pk),
            *[partial(send_update, model, client) for client in people],
        )
        assert results[0] is None
        assert not isinstance(results[1], Exception), results[1]
        assert all(
            isinstance(result, ModelUpdate | Refused | FederatedModel.DoesNotExist) for result in results[2:]
        ), results
        assert not FederatedModel.objects.filter(pk=model.pk).exists()
        assert not Round.objects.exists()
        assert not ModelUpdate.objects.exists()


def test_work_that_takes_longer_than_a_lease_keeps_it(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.FMA_LEASE_SECONDS = 0.6
    model = make_model(requirement="require_x_updates", requirement_args=[2])
    due = due_round(model, 2)
    put_file = DiskStore.put_file

    def put_slowly(store: DiskStore, path: Path, sha256: str) -> None:
        time.sleep(1.5)
        put_file(store, path, sha256)

    monkeypatch.setattr(DiskStore, "put_file", put_slowly)
    assert aggregate_round(due.pk) is not None
    due.refresh_from_db()
    assert due.attempts == 1


def test_work_on_a_round_that_was_taken_over_ends_early(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.FMA_LEASE_SECONDS = 0.6
    model = make_model(requirement="require_x_updates", requirement_args=[2])
    due = due_round(model, 2)
    told: list[float] = []

    def fold_slowly(*_: Any, progress: Callable[[float], None], **__: Any) -> None:
        Round.objects.filter(pk=due.pk).update(lease_token=uuid.uuid4())
        for step in range(100):
            time.sleep(0.05)
            told.append(step)
            progress(0.0)

    monkeypatch.setattr("fma_django.rounds.folding.fold", fold_slowly)
    assert aggregate_round(due.pk) is None
    assert len(told) < 100
