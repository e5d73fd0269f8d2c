"""Evaluations: who is asked, what is taken, when it ends, and what is never shown."""

from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone
from pytest_django import Settings

from fma_core.errors import InvalidQuestion, InvalidStatistics, SpecMismatch
from fma_core.evaluation import Question, differences, metrics_of, statistics_of, to_json
from fma_django.clients.registration import revoke_client
from fma_django.errors import (
    EvaluationClosed,
    IdempotencyKeyReused,
    InvalidTransition,
    InvalidValue,
    IsolatesContributors,
    NotRegistered,
    NotSelected,
    ResultTaken,
    TooFewContributors,
)
from fma_django.evaluations.ends import cancel_evaluation, close_evaluation
from fma_django.evaluations.opening import Chosen, EvaluationRules, open_evaluation
from fma_django.evaluations.results import receive_result
from fma_django.experiments import lifecycle
from fma_django.experiments.changes import delete_federated_model
from fma_django.models import Client, Disclosure, EvaluationResult, EvaluationRound, FederatedModel, Tag
from fma_django.record.weights import JsonBody
from fma_django.storage import get_store
from fma_django.work.sweep import sweep_files, sweep_rounds
from tests.evaluations import BINARY, answer, counted, make_member, open_to
from tests.records import WEIGHTS, change_now, make_aggregate, make_client, make_model, make_user, weights

pytestmark = pytest.mark.django_db


@pytest.fixture
def model(db: None) -> FederatedModel:
    return make_model(initial_model=WEIGHTS)


@pytest.fixture
def clients(model: FederatedModel) -> list[Client]:
    """One client of each of three hospitals."""
    return [make_member(name, model).client for name in ("north", "east", "south")]


def again(evaluation: EvaluationRound) -> EvaluationRound:
    return EvaluationRound.objects.get(pk=evaluation.pk)


def close(evaluation: EvaluationRound) -> EvaluationRound:
    close_evaluation(evaluation)
    return again(evaluation)


def test_last_answer_closes_and_shows_the_metrics_of_the_pooled_examples(
    model: FederatedModel, clients: list[Client]
) -> None:
    rng = np.random.default_rng(0)
    question = Question("binary", bins=10, with_loss=True)
    evaluation = open_evaluation(model, question.to_json(), artifact_id=model.current_artifact_id)
    examples = []
    for client, size in zip(clients, (3, 40, 7), strict=True):
        assert again(evaluation).is_open
        own = {
            "y_true": rng.integers(0, 2, size),
            "y_pred": rng.integers(0, 2, size),
            "scores": rng.integers(0, 11, size) / 10,
            "losses": rng.random(size),
        }
        examples.append(own)
        receive_result(evaluation, client, to_json(statistics_of(question, **own)))

    closed = again(evaluation)

    pooled = {name: np.concatenate([own[name] for own in examples]) for name in examples[0]}
    expected = metrics_of(statistics_of(question, **pooled))
    assert closed.metrics.pop("by_label") == [
        pytest.approx(label, abs=1e-9) for label in expected.pop("by_label")
    ]
    assert closed.metrics.pop("confusion") == expected.pop("confusion")
    assert closed.metrics == pytest.approx(expected, abs=1e-9)
    assert (closed.state, closed.reason, closed.num_contributors) == ("closed", "all_answered", 3)
    assert closed.why_withheld is None


def test_nothing_is_shown_while_it_is_open(model: FederatedModel, clients: list[Client]) -> None:
    make_client(model)
    evaluation = open_to(model)
    for client in clients:
        answer(evaluation, client)
    found = again(evaluation)
    assert found.metrics is None
    assert found.why_withheld == ("still_open", "metrics are shown when the evaluation has closed")


def test_nothing_is_shown_of_too_few(model: FederatedModel, clients: list[Client]) -> None:
    evaluation = open_to(model)
    for client in clients[:2]:
        answer(evaluation, client)
    closed = close(evaluation)
    assert closed.metrics is None
    assert closed.withheld == "too_few_contributors"
    assert "2 contributors answered" in closed.withheld_detail
    assert not EvaluationResult.objects.filter(is_counted=True).exists()


def test_many_clients_of_one_hospital_are_one_contributor(
    model: FederatedModel, clients: list[Client]
) -> None:
    more = [make_member("north", model).client for _ in range(3)]
    evaluation = open_to(model)
    for client in (clients[0], clients[1], *more):
        answer(evaluation, client)
    assert close(evaluation).num_contributors == 2


def test_clients_without_an_organisation_stand_for_themselves(model: FederatedModel) -> None:
    alone = [make_client(model).client for _ in range(3)]
    evaluation = open_to(model)
    for client in alone:
        answer(evaluation, client, hits=1, misses=1)
    assert again(evaluation).metrics["accuracy"] == 0.5


def test_hospital_below_its_quorum_contributes_nothing(model: FederatedModel, clients: list[Client]) -> None:
    others = [make_member(name, model).client for name in ("north", "east", "south", "west", "west")]
    evaluation = open_to(model, rules=EvaluationRules(quorum_per_organisation=2))
    for client in (*clients, *others[:-1]):  # of west, one
        answer(evaluation, client, hits=1)
    closed = close(evaluation)
    assert (closed.num_contributors, closed.metrics["num_examples"]) == (3, 6)
    assert EvaluationResult.objects.filter(is_counted=False).get().client == others[3]


def test_deadline_closes_by_the_clock_of_the_server(model: FederatedModel, clients: list[Client]) -> None:
    make_client(model)  # never answers
    evaluation = open_to(model)
    for client in clients:
        answer(evaluation, client)
    sweep_rounds()
    assert again(evaluation).is_open
    EvaluationRound.objects.update(deadline_at=timezone.now())

    sweep_rounds()

    closed = again(evaluation)
    assert (closed.reason, closed.metrics["num_examples"]) == ("deadline", 3)


def test_answer_after_the_deadline_is_refused_though_nobody_has_swept(
    model: FederatedModel, clients: list[Client]
) -> None:
    evaluation = open_to(model)
    EvaluationRound.objects.update(deadline_at=timezone.now() - timedelta(seconds=1))
    with pytest.raises(EvaluationClosed):
        answer(evaluation, clients[0])


def test_same_answer_again_is_the_same_row_even_after_the_end(
    model: FederatedModel, clients: list[Client]
) -> None:
    evaluation = open_to(model)
    first = answer(evaluation, clients[0], hits=2)
    assert answer(evaluation, clients[0], hits=2) == first
    close(evaluation)
    assert answer(evaluation, clients[0], hits=2) == first
    with pytest.raises(ResultTaken):
        answer(evaluation, clients[0], hits=3)
    with pytest.raises(EvaluationClosed):
        answer(evaluation, clients[1])


def test_who_was_not_asked_cannot_answer(model: FederatedModel, clients: list[Client]) -> None:
    evaluation = open_to(model)
    latecomer, stranger = make_client(model).client, make_client().client
    with pytest.raises(NotSelected):
        answer(evaluation, latecomer)
    with pytest.raises(NotRegistered):
        answer(evaluation, stranger)


def test_revoked_client_is_not_waited_for(model: FederatedModel, clients: list[Client]) -> None:
    gone = make_client(model).client
    evaluation = open_to(model)
    revoke_client(gone)
    for client in clients:
        answer(evaluation, client)
    assert again(evaluation).reason == "all_answered"


def test_wrong_statistics_are_refused(model: FederatedModel, clients: list[Client]) -> None:
    evaluation = open_to(model)
    with pytest.raises(InvalidStatistics) as refused:
        receive_result(evaluation, clients[0], {**counted(), "confusion": [[-1, 2], [0, 1]]})
    assert refused.value.facts["field"] == "statistics"
    assert not EvaluationResult.objects.exists()


def test_ended_evaluation_cannot_end_again(model: FederatedModel, clients: list[Client]) -> None:
    evaluation = open_to(model)
    cancel_evaluation(evaluation)
    found = again(evaluation)
    assert (found.state, found.reason, found.why_withheld) == (
        "cancelled",
        "by_owner",
        ("cancelled", "the evaluation was cancelled"),
    )
    for end in (cancel_evaluation, close_evaluation):
        with pytest.raises(InvalidTransition):
            end(evaluation)


@pytest.fixture
def five(model: FederatedModel) -> list[Client]:
    return [make_client(model).client for _ in range(5)]


def shown_of(model: FederatedModel, clients: list[Client]) -> EvaluationRound:
    """An evaluation of everyone, which these answer."""
    evaluation = open_to(model)
    for client in clients:
        answer(evaluation, client)
    return again(evaluation) if not again(evaluation).is_open else close(evaluation)


def test_evaluation_that_differs_by_one_client_cannot_be_opened(
    model: FederatedModel, five: list[Client]
) -> None:
    shown_of(model, five)
    with pytest.raises(IsolatesContributors, match="by 1 contributors"):
        open_to(model, chosen=Chosen(clients=[client.pk for client in five[:4]]))


def test_evaluation_that_came_to_differ_by_one_client_is_not_shown(
    model: FederatedModel, five: list[Client]
) -> None:
    assert shown_of(model, five).metrics is not None
    second = shown_of(model, five[:4])
    assert (second.metrics, second.withheld) == (None, "isolates_contributors")
    # What was not shown says nothing, so that it does not stand in the way.
    assert shown_of(model, five).metrics is not None


def test_operator_may_show_what_isolates(
    model: FederatedModel, five: list[Client], settings: Settings
) -> None:
    settings.FMA_EVALUATION_REFUSE_ISOLATION = False
    shown_of(model, five)
    assert shown_of(model, five[:4]).metrics is not None


def test_a_clone_shows_nothing_that_isolates_beside_its_original(
    model: FederatedModel, five: list[Client]
) -> None:
    shown_of(model, five)
    clone = lifecycle.clone(model, developer=model.developer, clients=five)
    with pytest.raises(IsolatesContributors, match="by 1 contributors"):
        open_to(clone, chosen=Chosen(clients=[client.pk for client in five[:4]]))


def test_deleting_a_model_does_not_make_forget_what_was_shown(
    model: FederatedModel, five: list[Client]
) -> None:
    shown_of(model, five)
    again_asked = make_model(model.developer, initial_model=WEIGHTS)
    again_asked.clients.set(five)
    delete_federated_model(model)

    with pytest.raises(IsolatesContributors, match="by 1 contributors"):
        open_to(again_asked, chosen=Chosen(clients=[client.pk for client in five[:4]]))


@pytest.mark.parametrize("whose", ["the old owner's", "the new owner's"])
def test_giving_a_model_away_does_not_make_forget_what_was_shown(
    model: FederatedModel, five: list[Client], whose: str
) -> None:
    shown_of(model, five)
    old, new = model.developer, make_user()
    change_now(model, {"developer": new})
    delete_federated_model(model)
    second = make_model(old if whose.startswith("the old") else new, initial_model=WEIGHTS)
    second.clients.set(five)

    with pytest.raises(IsolatesContributors, match="by 1 contributors"):
        open_to(second, chosen=Chosen(clients=[client.pk for client in five[:4]]))
    assert shown_of(second, five).metrics is not None


def test_what_was_shown_of_a_client_is_forgotten_with_the_client(
    model: FederatedModel, five: list[Client]
) -> None:
    shown_of(model, five)
    assert Disclosure.objects.filter(observer=model.developer.pk).count() == 5

    five[0].delete()

    assert Disclosure.objects.count() == 4


def test_what_was_shown_long_ago_is_not_forgotten(
    model: FederatedModel, five: list[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(differences, "MOST_COMBINED", 1)
    shown_of(model, five)
    others = [make_client(model).client.pk for _ in range(3)]
    for _ in range(2):
        evaluation = open_to(model, chosen=Chosen(clients=others))
        for client in Client.objects.filter(pk__in=others):
            answer(evaluation, client)
        assert again(evaluation).metrics is not None
    with pytest.raises(IsolatesContributors, match="by 1 contributors"):
        open_to(model, chosen=Chosen(clients=[client.pk for client in five[:4]]))


def test_evaluations_of_another_developer_do_not_stand_in_the_way(
    model: FederatedModel, five: list[Client]
) -> None:
    other = make_model(initial_model=WEIGHTS)
    for client in five:
        other.clients.add(client)
    shown_of(model, five)
    assert shown_of(other, five[:4]).metrics is not None


def test_too_few_cannot_be_asked(model: FederatedModel, clients: list[Client]) -> None:
    with pytest.raises(TooFewContributors, match="2 contributors"):
        open_to(model, chosen=Chosen(organisations=["north", "east"]))
    with pytest.raises(TooFewContributors):
        open_to(model, rules=EvaluationRules(quorum_per_organisation=2))


def test_clients_are_chosen_by_name_tag_or_organisation(model: FederatedModel, clients: list[Client]) -> None:
    tagged, alone, left_out = (make_client(model).client for _ in range(3))
    tagged.tags.add(Tag.objects.create(name="ward"))
    chosen = Chosen(clients=[alone.pk, tagged.pk], tags=["ward"], organisations=["north"])
    evaluation = open_to(model, chosen=chosen)
    assert set(evaluation.clients.all()) == {tagged, alone, clients[0]}
    assert left_out not in evaluation.clients.all()


@pytest.mark.parametrize(
    ("chosen", "field"),
    [
        (Chosen(tags=["nobody"]), "tags"),
        (Chosen(organisations=["north", "nobody"]), "organisations"),
    ],
    ids=["tag", "organisation"],
)
def test_names_that_nobody_has_are_refused(
    model: FederatedModel, clients: list[Client], chosen: Chosen, field: str
) -> None:
    with pytest.raises(InvalidValue, match="'nobody'") as refused:
        open_to(model, chosen=chosen)
    assert refused.value.facts["field"] == field


def test_client_of_another_model_cannot_be_chosen(model: FederatedModel, clients: list[Client]) -> None:
    stranger = make_client(make_model()).client
    with pytest.raises(InvalidValue, match=str(stranger.pk)):
        open_to(model, chosen=Chosen(clients=[stranger.pk, *(client.pk for client in clients)]))


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        (EvaluationRules(min_contributors=2), "min_contributors"),
        (EvaluationRules(quorum_per_organisation=0), "quorum_per_organisation"),
        (EvaluationRules(deadline_s=0), "deadline_s"),
        (EvaluationRules(deadline_s=1e9), "deadline_s"),
    ],
    ids=["below what the server allows", "no quorum", "no time", "years"],
)
def test_rules_out_of_range_are_refused(
    model: FederatedModel, clients: list[Client], rules: EvaluationRules, field: str
) -> None:
    with pytest.raises(InvalidValue) as refused:
        open_to(model, rules=rules)
    assert refused.value.facts["field"] == field


def test_wrong_question_is_refused(model: FederatedModel, clients: list[Client]) -> None:
    with pytest.raises(InvalidQuestion) as refused:
        open_evaluation(model, {"task": "ranking"}, artifact_id=model.current_artifact_id)
    assert refused.value.facts["field"] == "question"


@pytest.mark.parametrize(
    "weights_of",
    [{}, {"aggregate_id": 4711}, {"artifact_id": 4711}, {"artifact_id": 1, "aggregate_id": 1}],
    ids=["none", "no aggregate", "no artifact", "two"],
)
def test_evaluation_is_of_weights_that_are_there(
    model: FederatedModel, clients: list[Client], weights_of: dict[str, Any]
) -> None:
    with pytest.raises(InvalidValue):
        open_evaluation(model, BINARY, **weights_of)


def test_uploaded_weights_fit_the_model_and_are_kept(
    model: FederatedModel, clients: list[Client], settings: Settings
) -> None:
    with pytest.raises(SpecMismatch):
        open_evaluation(model, BINARY, body=JsonBody({"b": [1.0]}))
    evaluation = open_evaluation(model, BINARY, body=JsonBody(weights(5.0)))
    settings.FMA_ORPHAN_GRACE_SECONDS = -1

    sweep_files()

    assert evaluation.subject == "upload"
    assert evaluation.sha256 in [blob.sha256 for blob in get_store().blobs()]


def test_weights_stay_when_their_aggregate_goes(model: FederatedModel, clients: list[Client]) -> None:
    aggregate = make_aggregate(model, clients[0])
    evaluation = open_evaluation(model, BINARY, aggregate_id=aggregate.pk)
    assert (evaluation.subject, evaluation.sha256) == ("aggregate", aggregate.sha256)
    model.rounds.filter(aggregate=aggregate).delete()
    aggregate.delete()
    assert again(evaluation).sha256 == evaluation.sha256


def test_same_request_again_opens_nothing_more(model: FederatedModel, clients: list[Client]) -> None:
    first = open_to(model, once_key=("alice", "k"))
    assert open_to(model, once_key=("alice", "k")) == first
    with pytest.raises(IdempotencyKeyReused):
        open_to(model, name="another", once_key=("alice", "k"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "closed", "reason": "by_owner", "closed_on": timezone.now()},  # neither shown nor withheld
        {"metrics": {}},
        {"state": "cancelled"},
        {"min_contributors": 1},
        {"state": "asleep", "reason": "by_owner", "closed_on": timezone.now()},
    ],
    ids=["without metrics", "shown while open", "without an end", "of one", "unknown state"],
)
def test_the_database_refuses_what_must_never_be(
    model: FederatedModel, clients: list[Client], wrong: dict[str, Any]
) -> None:
    evaluation = open_to(model)
    with pytest.raises(IntegrityError), transaction.atomic():
        EvaluationRound.objects.filter(pk=evaluation.pk).update(**wrong)
