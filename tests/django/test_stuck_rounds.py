"""Rounds that would wait for ever: edited when they had started, left by who was asked, full without who is needed."""

from typing import Any

import pytest

from fma_core.rounds import life
from fma_django.clients.joining import join
from fma_django.clients.registration import revoke_client
from fma_django.experiments import lifecycle
from fma_django.experiments.changes import change_federated_model
from fma_django.models import FederatedModel, Organisation, Round
from fma_django.rounds import advance, deadlines
from fma_django.rounds.facts import RecordedFacts
from tests.django.test_cohorts import RANDOM, asked, chosen, current, pass_deadline  # noqa: F401  # asked: autouse
from tests.records import WEIGHTS, aggregate_now, make_client, make_model, send_update

pytestmark = pytest.mark.django_db

CHOOSES: dict[str, Any] = {"selector": RANDOM, "round_policy": {"goal": 2, "over_selection": 1}}


def of_everyone(**options: Any) -> FederatedModel:
    model = make_model(initial_model=WEIGHTS, **options)
    for _ in range(4):
        make_client(model)
    return model


def test_a_round_that_is_told_to_choose_clients_before_anybody_came_chooses_them() -> None:
    model = of_everyone()
    assert current(model).started_on is not None
    change_federated_model(model, CHOOSES)
    assert current(model).num_asked == 2
    for client in chosen(model):
        assert join(model, client).is_accepted
        send_update(model, client)
    aggregate_now(model)


def test_a_paused_round_that_is_told_to_choose_clients_chooses_them_when_it_goes_on() -> None:
    model = of_everyone(requirement="all_clients")
    send_update(model, model.clients.all()[0])
    lifecycle.pause(model)
    change_federated_model(model, CHOOSES)
    assert current(model).num_asked is None
    lifecycle.start(model)
    assert current(model).num_asked == 2


def test_a_paused_round_that_is_told_to_let_everyone_answer_does_not_wait_for_its_cohort() -> None:
    model = of_everyone(**CHOOSES)
    lifecycle.pause(model)
    change_federated_model(model, {"selector": {"name": "everyone"}, "round_policy": {}})
    lifecycle.start(model)
    assert current(model).num_asked is None
    send_update(model, model.clients.all()[0])
    aggregate_now(model)


def test_a_deadline_that_is_given_to_the_open_round_runs() -> None:
    model = of_everyone()
    change_federated_model(model, {"round_policy": {"goal": 3, "quorum": 1, "deadline_s": 60}})
    assert current(model).deadline_at is not None
    change_federated_model(model, {"round_policy": {"goal": 3}})
    assert current(model).deadline_at is None


def test_a_full_round_still_takes_the_organisation_that_it_waits_for() -> None:
    model = make_model(initial_model=WEIGHTS, round_policy={"max_updates": 2, "quorum_organisations": 2})
    first, second, third = (make_client(model).client for _ in range(3))
    model.clients.filter(pk__in=(first.pk, second.pk)).update(
        organisation=Organisation.objects.create(name="a")
    )
    model.clients.filter(pk=third.pk).update(organisation=Organisation.objects.create(name="b"))
    send_update(model, first)
    send_update(model, second)
    assert join(model, third).is_accepted
    send_update(model, third)
    aggregate_now(model)


def test_a_cohort_that_somebody_left_waits_for_the_others() -> None:
    model = make_model(initial_model=WEIGHTS, selector={"name": "poisson", "q": 1.0})
    change_federated_model(model, {"allow_aggregation": False})
    for _ in range(3):
        make_client(model)
    lifecycle.start(model)
    stays, also, leaves = chosen(model)
    send_update(model, stays)
    send_update(model, also)
    revoke_client(leaves)
    aggregate_now(model)


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("a plugin's defect")


def test_a_selector_that_fails_holds_up_neither_the_publication_nor_other_models(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = of_everyone(**CHOOSES)
    for client in chosen(model):
        send_update(model, client)
    with monkeypatch.context() as patch:
        patch.setattr("fma_core.rounds.life.draw_cohort", broken)
        aggregate_now(model)
        assert "RuntimeError: a plugin's defect" in current(model).waits_for
        deadlines.look_at_the_time()
    deadlines.look_at_the_time()
    assert current(model).num_asked == 2


def test_a_deadline_that_fails_does_not_keep_those_of_others_from_firing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = {"goal": 3, "quorum": 2, "deadline_s": 60}
    models = [of_everyone(round_policy=policy) for _ in range(2)]
    for model in models:
        pass_deadline(model)

    def next_step(rules: Any, facts: RecordedFacts) -> life.Step:
        return broken() if facts.current.federated_model_id == models[0].pk else life.next_step(rules, facts)

    monkeypatch.setattr(advance, "next_step", next_step)
    deadlines.fire_deadlines()
    assert [current(model).num_reopenings for model in models] == [0, 1]


def test_an_end_date_that_was_put_off_meanwhile_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = of_everyone(round_policy={"end_date": "2000-01-01T00:00:00Z"}, allow_aggregation=False)
    FederatedModel.objects.filter(pk=model.pk).update(allow_aggregation=True)
    real = deadlines.find_open_round  # type: ignore[attr-defined]

    def put_off_before(found: FederatedModel) -> Round | None:
        FederatedModel.objects.filter(pk=model.pk).update(round_policy={"end_date": "2100-01-01T00:00:00Z"})
        return real(found)

    monkeypatch.setattr(deadlines, "find_open_round", put_off_before)
    deadlines.look_at_the_time()
    model.refresh_from_db()
    assert model.state == "running"


def test_each_attempt_to_draw_enough_clients_has_its_own_randomness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fma_core.rounds.cohorts.MAX_DRAWS", 1)
    model = of_everyone(selector={"name": "poisson", "q": 1e-9}, round_policy={"min_updates": 3})
    assert current(model).waits_for == "clients that may be asked: 0 of 3"
    before = current(model).num_draws
    for _ in range(2):
        deadlines.look_at_the_time()
    assert current(model).num_draws == before + 2
