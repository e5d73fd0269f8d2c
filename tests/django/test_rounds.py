"""A round moves only as its table says, and only for whoever holds its lease."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from fma_core.rounds.life import TRANSITIONS
from fma_django.errors import InvalidTransition, LeaseLost
from fma_django.experiments.changes import change_federated_model
from fma_django.models import FederatedModel, ModelUpdate, Round
from fma_django.models.model_update import UpdateStatus
from fma_django.models.round import ENDED, RoundState
from fma_django.rounds import claiming, leases, publishing, rows
from tests.records import (
    aggregate_now,
    make_aggregate,
    make_client,
    make_model,
    received,
    send_update,
    weights,
)

pytestmark = pytest.mark.django_db

SHA256 = "0" * 64


def due_round(model: FederatedModel) -> Round:
    """The collecting round of a model, with as many updates as it needs."""
    for _ in range(2):
        send_update(model, make_client(model).client)
    return model.rounds.get(state=RoundState.COLLECTING)


def expire_lease(round_id: int) -> None:
    Round.objects.filter(pk=round_id).update(lease_expires_at=timezone.now() - timedelta(seconds=1))


def test_every_state_has_a_row_in_the_table_and_ended_ones_lead_nowhere() -> None:
    assert set(TRANSITIONS) == set(RoundState)
    assert set(ENDED) == {RoundState.PUBLISHED, RoundState.CANCELLED, RoundState.FAILED}


@pytest.mark.parametrize(
    ("state", "to"),
    [(state, to) for state in RoundState for to in RoundState if to not in TRANSITIONS[state]],
)
def test_move_refuses_what_the_table_does_not_have(state: RoundState, to: RoundState) -> None:
    with pytest.raises(InvalidTransition, match="cannot become"):
        rows.move(Round(pk=1, number=1, state=state), to)


def test_move_refuses_a_round_that_somebody_else_moved(model: FederatedModel) -> None:
    seen = model.rounds.get()
    Round.objects.filter(pk=seen.pk).update(state=RoundState.CANCELLED, closed_on=timezone.now())
    with pytest.raises(InvalidTransition, match="no longer collecting"):
        rows.move(seen, RoundState.CANCELLED, closed_on=timezone.now())


def test_claim_freezes_the_updates_and_opens_the_next_round(model: FederatedModel) -> None:
    due = due_round(model)
    lease = claiming.claim(due.pk)
    due.refresh_from_db()
    assert lease is not None
    assert (due.state, due.attempts, due.lease_token) == (RoundState.AGGREGATING, 1, lease.token)
    assert set(due.model_updates.values_list("status", flat=True)) == {UpdateStatus.RUNNING}
    assert model.rounds.get(state=RoundState.COLLECTING).number == due.number + 1


def test_from_the_last_update_to_the_aggregate_few_statements_are_waited_for(
    model: FederatedModel, django_assert_num_queries: Any
) -> None:
    due = due_round(model)
    # Two of each are the savepoint of a test. Lock and read the round, look beside it and for what the first round
    # starts from, move it and its updates; its configuration and the round after it.
    with django_assert_num_queries(10):
        lease = claiming.claim(due.pk)
    assert lease is not None
    # The aggregate, the round and its updates; lock and read the next, give it its parent, look beside it, start it.
    with django_assert_num_queries(10):
        publishing.publish(lease, received(SHA256, 1), metrics={}, uses={})


def test_a_publication_wakes_those_who_wait_once(
    model: FederatedModel, django_capture_on_commit_callbacks: Any
) -> None:
    lease = claiming.claim(due_round(model).pk)
    assert lease is not None
    with django_capture_on_commit_callbacks() as said:
        publishing.publish(lease, received(SHA256, 1), metrics={}, uses={})
    assert len(said) == 1


def test_a_round_is_claimed_once(model: FederatedModel) -> None:
    due = due_round(model)
    assert claiming.claim(due.pk) is not None
    assert claiming.claim(due.pk) is None


def test_a_round_that_is_not_due_is_not_claimed(model: FederatedModel) -> None:
    send_update(model, make_client(model).client)
    assert claiming.claim(model.rounds.get().pk) is None


def test_the_round_of_a_paused_model_is_not_claimed(model: FederatedModel) -> None:
    due = due_round(model)
    FederatedModel.objects.filter(pk=model.pk).update(allow_aggregation=False)
    assert claiming.claim(due.pk) is None


def test_a_round_that_is_gone_is_not_claimed() -> None:
    assert claiming.claim(12345) is None


def test_the_next_round_waits_for_the_one_that_is_aggregated(model: FederatedModel) -> None:
    first = due_round(model)
    lease = claiming.claim(first.pk)
    assert lease is not None
    second = due_round(model)
    assert claiming.claim(second.pk) is None
    publishing.publish(lease, received(SHA256, 1), metrics={}, uses={})
    assert claiming.claim(second.pk) is not None


def test_an_update_that_arrives_while_its_round_is_aggregated_goes_to_the_next(model: FederatedModel) -> None:
    due = due_round(model)
    claiming.claim(due.pk)
    late = send_update(model, make_client(model).client)
    assert (late.round.number, late.status) == (due.number + 1, UpdateStatus.PENDING)


def test_an_expired_lease_is_taken_over_and_its_former_holder_cannot_publish(model: FederatedModel) -> None:
    due = due_round(model)
    dead = claiming.claim(due.pk)
    expire_lease(due.pk)
    alive = claiming.claim(due.pk)
    assert dead is not None
    assert alive is not None
    for too_late in (
        lambda: publishing.publish(dead, received(SHA256, 1), metrics={}, uses={}),
        lambda: leases.renew(dead),
        lambda: publishing.fail(dead, code="x", detail="y"),
    ):
        with pytest.raises(LeaseLost):
            too_late()
    aggregate = publishing.publish(alive, received(SHA256, 1), metrics={}, uses={})
    assert list(model.aggregates.all()) == [aggregate]


def test_a_lease_that_expired_does_not_publish_even_when_nobody_took_it_over(model: FederatedModel) -> None:
    due = due_round(model)
    lease = claiming.claim(due.pk)
    assert lease is not None
    expire_lease(due.pk)
    with pytest.raises(LeaseLost):
        publishing.publish(lease, received(SHA256, 1), metrics={}, uses={})
    assert not model.aggregates.exists()


def test_renewing_moves_the_expiry(model: FederatedModel, settings: Any) -> None:
    due = due_round(model)
    lease = claiming.claim(due.pk)
    assert lease is not None
    settings.FMA_LEASE_SECONDS = 3600
    leases.renew(lease)
    due.refresh_from_db()
    assert due.lease_expires_at is not None
    assert due.lease_expires_at > timezone.now() + timedelta(seconds=3000)


def test_a_released_round_can_be_claimed_at_once(model: FederatedModel) -> None:
    due = due_round(model)
    lease = claiming.claim(due.pk)
    assert lease is not None
    leases.release(lease)
    assert claiming.claim(due.pk) is not None


def test_a_round_that_kills_its_workers_fails_in_the_end(model: FederatedModel, settings: Any) -> None:
    settings.FMA_MAX_ATTEMPTS = 2
    due = due_round(model)
    for _ in range(2):
        assert claiming.claim(due.pk) is not None
        expire_lease(due.pk)
    assert claiming.claim(due.pk) is None
    due.refresh_from_db()
    assert (due.state, due.failure_code) == (RoundState.FAILED, "too_many_attempts")


def test_publishing_ties_round_aggregate_and_updates_together(model: FederatedModel) -> None:
    due = due_round(model)
    lease = claiming.claim(due.pk)
    assert lease is not None
    aggregate = publishing.publish(lease, received(SHA256, 7), metrics={}, uses={})
    due.refresh_from_db()
    assert (due.state, due.aggregate, due.lease_token) == (RoundState.PUBLISHED, aggregate, None)
    assert due.closed_on is not None
    told = set(due.model_updates.values_list("status", "applied_aggregate"))
    assert told == {(UpdateStatus.COMPLETE, aggregate.pk)}
    assert model.rounds.get(state=RoundState.COLLECTING).parent == aggregate


def test_aggregates_are_a_chain_by_parent(model: FederatedModel) -> None:
    people = [make_client(model).client for _ in range(2)]
    first = make_aggregate(model, *people)
    second = make_aggregate(model, *people, value=2.0)
    assert (first.parent, second.parent) == (None, first)


def test_failing_says_why_and_lets_the_model_go_on(model: FederatedModel) -> None:
    people = [make_client(model).client for _ in range(2)]
    for person in people:
        send_update(model, person)
    due = model.rounds.get()
    lease = claiming.claim(due.pk)
    assert lease is not None
    publishing.fail(lease, code="non_finite_result", detail="array 'w' overflows")
    due.refresh_from_db()
    assert (due.state, due.failure_code, due.failure_detail) == (
        RoundState.FAILED,
        "non_finite_result",
        "array 'w' overflows",
    )
    assert set(due.model_updates.values_list("status", flat=True)) == {UpdateStatus.FAILED}
    assert make_aggregate(model, *people).round.number == due.number + 1


def test_cancelling_gives_up_what_was_sent_and_opens_the_next_round(model: FederatedModel) -> None:
    update = send_update(model, make_client(model).client)
    cancelled = publishing.cancel(model.rounds.get(state=RoundState.COLLECTING))
    update.refresh_from_db()
    assert (cancelled.state, update.status) == (RoundState.CANCELLED, UpdateStatus.INVALID)
    assert "cancelled" in update.status_reason
    assert model.rounds.get(state=RoundState.COLLECTING).number == 2


def test_meeting_the_requirement_asks_for_the_aggregation_once_committed(
    model: FederatedModel, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    asked: list[int] = []
    monkeypatch.setattr("fma_django.queue.aggregate", asked.append)
    with django_capture_on_commit_callbacks(execute=True):
        send_update(model, make_client(model).client)
    assert asked == []
    with django_capture_on_commit_callbacks(execute=True):
        send_update(model, make_client(model).client)
    collecting = model.rounds.get()
    assert asked == [collecting.pk]
    assert collecting.ready_on is not None


def test_resuming_aggregates_what_waits(
    monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    asked: list[int] = []
    monkeypatch.setattr("fma_django.queue.aggregate", asked.append)
    model = make_model(allow_aggregation=False)
    with django_capture_on_commit_callbacks(execute=True):
        send_update(model, make_client(model).client)
    assert asked == []
    with django_capture_on_commit_callbacks(execute=True):
        change_federated_model(model, {"allow_aggregation": True})
    assert asked == [model.rounds.get().pk]


def test_a_broker_that_is_down_does_not_undo_the_update(
    monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    def refuse(*_: object) -> None:
        raise ConnectionError("the broker is down")

    monkeypatch.setattr("django_q.tasks.async_task", refuse)
    model = make_model()
    with django_capture_on_commit_callbacks(execute=True):
        update = send_update(model, make_client(model).client)
    assert ModelUpdate.objects.filter(pk=update.pk, status=UpdateStatus.PENDING).exists()


class TestTheDatabaseRefuses:
    """Constraints forbid states that must never exist, whatever the code does."""

    def test_two_collecting_rounds_of_a_model(self, model: FederatedModel) -> None:
        with pytest.raises(IntegrityError), transaction.atomic():
            Round.objects.create(federated_model=model, number=2)

    def test_two_aggregating_rounds_of_a_model(self, model: FederatedModel) -> None:
        claiming.claim(due_round(model).pk)
        collecting = model.rounds.get(state=RoundState.COLLECTING)
        with pytest.raises(IntegrityError), transaction.atomic():
            Round.objects.filter(pk=collecting.pk).update(
                state=RoundState.AGGREGATING, lease_token="0" * 32, lease_expires_at=timezone.now()
            )

    @pytest.mark.parametrize(
        "wrong",
        [
            {"state": "sleeping"},
            {"state": RoundState.PUBLISHED, "closed_on": timezone.now()},
            {"state": RoundState.FAILED, "closed_on": timezone.now()},
            {"state": RoundState.AGGREGATING},
            {"state": RoundState.CANCELLED},
            {"closed_on": timezone.now()},
            {"failure_code": "x"},
        ],
    )
    def test_a_state_without_what_belongs_to_it(self, model: FederatedModel, wrong: dict[str, Any]) -> None:
        with pytest.raises(IntegrityError), transaction.atomic():
            model.rounds.update(**wrong)

    def test_one_aggregate_for_two_rounds(self, model: FederatedModel) -> None:
        aggregate = make_aggregate(model, *(make_client(model).client for _ in range(2)))
        with pytest.raises(IntegrityError), transaction.atomic():
            model.rounds.filter(state=RoundState.COLLECTING).update(
                state=RoundState.PUBLISHED, aggregate=aggregate, closed_on=timezone.now()
            )

    def test_two_accepted_updates_of_a_client_in_a_round(self, model: FederatedModel) -> None:
        update = send_update(model, make_client(model).client)
        update.pk = None
        with pytest.raises(IntegrityError), transaction.atomic():
            update.save()

    @pytest.mark.parametrize("num_examples", [0, 2**53 + 1])
    def test_a_weight_that_is_not_positive_or_not_exact(
        self, model: FederatedModel, num_examples: int
    ) -> None:
        send_update(model, make_client(model).client)
        with pytest.raises(IntegrityError), transaction.atomic():
            ModelUpdate.objects.update(num_examples=num_examples)

    def test_an_update_applied_without_being_complete(self, model: FederatedModel) -> None:
        aggregate = make_aggregate(model, *(make_client(model).client for _ in range(2)))
        with pytest.raises(IntegrityError), transaction.atomic():
            aggregate.updates_merged_into_it.update(status=UpdateStatus.PENDING)


def test_a_client_that_leaves_no_longer_counts(model: FederatedModel) -> None:
    stays, leaves = (make_client(model).client for _ in range(2))
    gone = send_update(model, leaves)
    change_federated_model(model, {"clients": [stays]})
    gone.refresh_from_db()
    assert (gone.status, model.rounds.get().num_updates) == (UpdateStatus.INVALID, 0)


def test_all_clients_closes_when_the_last_one_that_is_missing_leaves(
    django_capture_on_commit_callbacks: Any,
) -> None:
    model = make_model(requirement="all_clients")
    stays, _leaves = (make_client(model).client for _ in range(2))
    send_update(model, stays, weights(3.0))
    assert claiming.claim(model.rounds.get().pk) is None
    change_federated_model(model, {"clients": [stays]})
    assert aggregate_now(model).round.num_updates == 1
