"""claim → fold → publish, with everything that can go wrong in between."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.db import OperationalError
from django_q.exceptions import TimeoutException

from fma_core.aggregation.aggregators import Mean, aggregators
from fma_core.arrays.codecs.safetensors import decode
from fma_django.models import FederatedModel, ModelAggregate, Round
from fma_django.models.model_update import UpdateStatus
from fma_django.models.round import RoundState
from fma_django.rounds import aggregation
from fma_django.rounds.aggregation import aggregate_round
from fma_django.storage import get_store
from fma_django.storage.errors import StorageUnavailable
from fma_django.work import tasks
from tests.records import aggregate_now, make_client, make_model, send_update, weights

pytestmark = pytest.mark.django_db


def weights_of(aggregate: ModelAggregate) -> dict[str, Any]:
    return decode(b"".join(get_store().open_range(aggregate.sha256)))


def due_round(model: FederatedModel, *values: float) -> Round:
    for value in values:
        send_update(model, make_client(model).client, weights(value))
    return model.rounds.get(state=RoundState.COLLECTING)


def test_the_aggregate_is_the_weighted_mean(model: FederatedModel) -> None:
    rng = np.random.default_rng(7)
    sent = [{"w": rng.normal(size=(3, 4)), "b": rng.normal(size=3)} for _ in range(2)]
    for update, num_examples in zip(sent, (412, 31), strict=True):
        send_update(
            model,
            make_client(model).client,
            {name: array.tolist() for name, array in update.items()},
            num_examples=num_examples,
        )
    merged = weights_of(aggregate_now(model))
    for name in ("w", "b"):
        oracle = np.average([update[name] for update in sent], axis=0, weights=(412, 31))
        np.testing.assert_allclose(merged[name], oracle, rtol=1e-15)


@pytest.mark.parametrize("aggregator", ["avg_values_if_data", "average_layers"])
def test_fmas_rules_do_not_weight(aggregator: str) -> None:
    model = make_model(aggregator=aggregator, requirement="require_x_updates", requirement_args=[2])
    for value, num_examples in ((1.0, 1), (2.0, 999)):
        send_update(model, make_client(model).client, [[value, value], [value]], num_examples=num_examples)
    assert weights_of(aggregate_now(model))["0"].tolist() == [1.5, 1.5]


def test_the_task_may_run_twice(model: FederatedModel) -> None:
    due = due_round(model, 1.0, 3.0)
    assert tasks.aggregate(due.pk) == model.aggregates.get().pk
    assert tasks.aggregate(due.pk) is None
    assert model.aggregates.count() == 1


def test_the_update_that_makes_the_result_overflow_is_rejected_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = make_model(requirement="require_x_updates", requirement_args=[2])
    due = due_round(model, 1.6e308, 1.7e308)
    aggregate = aggregate_round(due.pk)
    assert aggregate is not None
    assert weights_of(aggregate)["b"].tolist() == [1.6e308] * 2
    kept, rejected = due.model_updates.order_by("pk")
    assert (kept.verdict, kept.weight_used) == ("used", 1.0)
    assert (rejected.verdict, rejected.verdict_by) == ("rejected", "non_finite_result")
    assert (rejected.weight_used, rejected.applied_aggregate) == (0.0, None)
    assert str(rejected.client_id) in caplog.text


def test_a_result_that_overflows_whoever_is_left_out_fails_the_round_and_accuses_nobody() -> None:
    model = make_model(
        requirement="require_x_updates",
        requirement_args=[2],
        optimiser={"name": "sgd", "learning_rate": 1e10},
        initial_model={"b": [0.0, 0.0], "w": [[0.0, 0.0], [0.0, 0.0]]},
    )
    due = due_round(model, 1.7e308, 1.7e308)
    assert aggregate_round(due.pk) is None
    due.refresh_from_db()
    assert due.failure_detail.endswith("; leaving out 1 of 2 updates does not help")
    assert "rejected" not in due.model_updates.values_list("verdict", flat=True)
    assert (due.state, due.failure_code) == (RoundState.FAILED, "non_finite_result")
    assert "'b'" in due.failure_detail
    assert not model.aggregates.exists()


def test_an_unreadable_update_does_not_hold_up_the_others(model: FederatedModel) -> None:
    due = due_round(model, 1.0, 2.0, 6.0)
    broken = due.model_updates.earliest("pk")
    get_store().delete(broken.sha256)
    aggregate = aggregate_round(due.pk)
    broken.refresh_from_db()
    assert aggregate is not None
    assert weights_of(aggregate)["b"].tolist() == [4.0, 4.0]
    assert (broken.status, broken.applied_aggregate) == (UpdateStatus.FAILED, None)
    assert broken.status_reason


def test_a_round_without_enough_readable_updates_fails(model: FederatedModel) -> None:
    due = due_round(model, 1.0, 2.0)
    get_store().delete(due.model_updates.earliest("pk").sha256)
    assert aggregate_round(due.pk) is None
    due.refresh_from_db()
    assert due.state == RoundState.FAILED
    assert "requirement is not met" in due.failure_detail


@pytest.mark.parametrize(
    "error",
    [StorageUnavailable("the store is away"), OperationalError("the database is away"), OSError("no room")],
)
def test_a_store_that_is_away_postpones_the_round(
    model: FederatedModel, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    due = due_round(model, 1.0, 2.0)

    def refuse(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(aggregation, "fold_round", refuse)
        for _ in range(5):  # more often than FMA_MAX_ATTEMPTS: an outage is not the round's fault
            assert aggregate_round(due.pk) is None
    due.refresh_from_db()
    assert due.state == RoundState.AGGREGATING
    assert aggregate_round(due.pk) is not None


def test_a_defect_in_a_rule_fails_the_round_with_its_name(
    model: FederatedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Mean):
        def combine(self, block: Any, decision: Any) -> Any:
            raise ZeroDivisionError("a plugin's mistake")

    due = due_round(model, 1.0, 2.0)
    with aggregators.register_temporarily("mean", Broken):
        assert aggregate_round(due.pk) is None
    due.refresh_from_db()
    assert (due.failure_code, due.failure_detail) == (
        "internal_error",
        "ZeroDivisionError: a plugin's mistake",
    )


def test_the_time_limit_fails_the_round(model: FederatedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    due = due_round(model, 1.0, 2.0)

    def take_too_long(*_: object, **__: object) -> None:
        raise TimeoutException("timeout")

    monkeypatch.setattr(aggregation, "fold_round", take_too_long)
    with pytest.raises(TimeoutException):
        aggregate_round(due.pk)
    due.refresh_from_db()
    assert (due.state, due.failure_code) == (RoundState.FAILED, "time_limit")


def test_a_worker_that_lost_its_lease_publishes_nothing(
    model: FederatedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    due = due_round(model, 1.0, 2.0)
    real_fold = aggregation.fold_round  # type: ignore[attr-defined]

    def fold_slowly(*args: Any, **kwargs: Any) -> Any:
        Round.objects.filter(pk=due.pk).update(lease_token="1" * 32)
        return real_fold(*args, **kwargs)

    monkeypatch.setattr(aggregation, "fold_round", fold_slowly)
    assert aggregate_round(due.pk) is None
    due.refresh_from_db()
    assert due.state == RoundState.AGGREGATING
    assert not model.aggregates.exists()


def test_a_model_that_is_deleted_under_a_worker_ends_its_work(
    model: FederatedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    due = due_round(model, 1.0, 2.0)
    real_fold = aggregation.fold_round  # type: ignore[attr-defined]

    def fold_slowly(*args: Any, **kwargs: Any) -> Any:
        model.delete()
        return real_fold(*args, **kwargs)

    monkeypatch.setattr(aggregation, "fold_round", fold_slowly)
    assert aggregate_round(due.pk) is None
    assert not ModelAggregate.objects.exists()


def test_the_result_has_the_same_bits_for_any_number_of_threads(settings: Any) -> None:
    values = np.random.default_rng(3).normal(size=(5, 7)) * 1e3

    def merged(threads: int) -> str:
        settings.FMA_THREADS = threads
        model = make_model(requirement="require_x_updates", requirement_args=[5])
        for row in values:
            send_update(model, make_client(model).client, row.tolist(), num_examples=3)
        return aggregate_now(model).sha256

    assert merged(1) == merged(3)


def test_nothing_is_left_in_the_spool(model: FederatedModel, storage: Path) -> None:
    due_round(model, 1.0, 2.0)
    aggregate_now(model)
    assert list(get_store().spool_dir().iterdir()) == []
