"""A rejected update is recorded as rejected, and its metrics count nowhere."""

from typing import Any, get_args

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from structlog.testing import capture_logs

from fma_core.engine.uses import Verdict
from fma_django.forwarders.forwarder import numbers_of_rounds
from fma_django.models import Client, FederatedModel, ModelUpdate
from fma_django.models.model_update import UpdateVerdict
from fma_django.record.queries.curves import curves_of
from fma_django.record.queries.metrics import client_metrics, published_rounds
from fma_django.record.queries.participation_history import participation_of
from fma_django.record.weights import JsonBody
from fma_django.rounds.verification import verify_round
from fma_django.updates.intake import UpdateFacts
from tests.records import aggregate_now, make_client, make_model, send_body, weights

pytestmark = [pytest.mark.django_db, pytest.mark.untraced]

HONEST = [1.0, 1.1, 0.9, 1.2, 0.8]
TARGET = {"metric": "accuracy", "target": 0.99}


def experiment(**options: Any) -> FederatedModel:
    said = {"aggregator": "multi_krum", "aggregator_params": {"f": 1}, **options}
    return make_model(
        initial_model=weights(0.0),
        requirement="require_x_updates",
        requirement_args=[len(HONEST) + 1],
        **said,
    )


def clients_of(model: FederatedModel) -> list[Client]:
    return [make_client(model).client for _ in range(len(HONEST) + 1)]


def play(
    model: FederatedModel,
    clients: list[Client],
    *,
    attack: float = -500.0,
    accuracy: float = 0.5,
    lie: float = 100.0,
) -> list[ModelUpdate]:
    """One round: all are honest but the last, whose accuracy is a lie. Its updates, in their order."""
    current = FederatedModel.objects.get(pk=model.pk)
    newest = current.aggregates.order_by("-pk").first()
    base = 0 if newest is None else newest.pk
    for client, value in zip(clients, [*HONEST, attack], strict=True):
        said = lie if client is clients[-1] else accuracy
        facts = UpdateFacts(base_aggregate_id=base, metrics={"accuracy": said})
        send_body(current, client, JsonBody(weights(value)), facts)
    applied = aggregate_now(current)
    return list(current.model_updates.filter(round__aggregate=applied).order_by("pk"))


def test_what_is_rejected_is_not_applied_and_says_by_what() -> None:
    model = experiment()

    *honest, attacker = play(model, clients_of(model))

    assert (attacker.verdict, attacker.verdict_by, attacker.weight_used) == ("rejected", "multi_krum", 0.0)
    assert attacker.applied_aggregate is None
    assert attacker.step_norm == pytest.approx(500 * 6**0.5)
    assert attacker.distance == pytest.approx(501 * 6**0.5)
    assert {(row.verdict, row.verdict_by, row.weight_used) for row in honest} == {("used", "", 0.2)}
    assert all(row.applied_aggregate is not None for row in honest)
    assert verify_round(model).is_equal


def test_what_is_rejected_ends_no_experiment() -> None:
    model = experiment(round_policy=TARGET)

    play(model, clients_of(model))

    model.refresh_from_db()
    assert model.state == "running"


def test_what_is_used_ends_it() -> None:
    model = experiment(round_policy=TARGET)

    play(model, clients_of(model), accuracy=0.995)

    model.refresh_from_db()
    assert model.end_reason == "target_metric"


def test_what_is_rejected_does_not_look_like_progress() -> None:
    model = experiment(round_policy={"metric": "accuracy", "patience": 1})
    clients = clients_of(model)

    play(model, clients, lie=100.0)
    play(model, clients, lie=200.0)

    model.refresh_from_db()
    assert model.end_reason == "no_improvement"


def test_metrics_count_only_what_was_used() -> None:
    model = experiment()
    *honest, attacker = play(model, clients_of(model))
    [published] = published_rounds(model)

    assert published.metrics["accuracy"]["mean"] == 0.5
    assert (published.metrics["accuracy"]["max"], published.metrics["accuracy"]["count"]) == (0.5, 5)
    assert [point.mean for point in curves_of(model)[0].points] == [0.5]
    assert not [each for each in numbers_of_rounds([published], after=0) if each.value == 100.0]
    of_clients = {each.client: each for each in client_metrics([published])}
    assert of_clients[str(attacker.client_id)].weight == 0
    assert of_clients[str(attacker.client_id)].verdict == "rejected"
    assert {of_clients[str(row.client_id)].weight for row in honest} == {1.0}


def test_the_history_of_a_client_has_its_verdicts() -> None:
    model = experiment(aggregator="norm_bounded_mean", aggregator_params={"max_norm": 10.0})
    clients = clients_of(model)
    play(model, clients)
    play(model, clients, attack=1.0)

    [*honest, attacker] = sorted(
        participation_of(Client.objects.all(), FederatedModel.objects.all()), key=lambda each: each.clipped
    )

    assert (attacker.client, attacker.clipped, attacker.rejected) == (clients[-1].pk, 1, 0)
    assert {(each.clipped, each.rejected, each.answered) for each in honest} == {(0, 0, 2)}


@pytest.mark.parametrize(
    ("options", "attack", "verdict", "by"),
    [
        ({"aggregator": "krum", "aggregator_params": {"f": 1}}, -500.0, "rejected", "krum"),
        ({"aggregator": "geometric_median", "aggregator_params": {}}, -500.0, "used", ""),
        ({"aggregator": "mean", "aggregator_params": {}}, -500.0, "used", ""),
        ({"aggregator": "median", "aggregator_params": {}}, -500.0, "used", ""),
        (
            {
                "aggregator": "mean",
                "aggregator_params": {},
                "stages": [{"name": "clip_norm", "max_norm": 50.0}],
            },
            -500.0,
            "clipped",
            "clip_norm",
        ),
        ({"optimiser": {"name": "fedadam"}}, -500.0, "rejected", "multi_krum"),
        ({"update_kind": "delta"}, 300.0, "rejected", "multi_krum"),
    ],
)
def test_each_kind_of_rule_gives_its_verdict(
    options: dict[str, Any], attack: float, verdict: str, by: str
) -> None:
    model = experiment(**options)

    attacker = play(model, clients_of(model), attack=attack)[-1]

    assert (attacker.verdict, attacker.verdict_by) == (verdict, by)
    assert (attacker.applied_aggregate is None) == (verdict == "rejected")


def test_the_log_says_which_updates_were_rejected() -> None:
    model = experiment()
    clients = clients_of(model)
    with capture_logs() as logs:
        *_, attacker = play(model, clients)

    [rejected] = [line for line in logs if line["event"] == "updates_rejected"]
    [published] = [line for line in logs if line["event"] == "round_published"]
    assert (rejected["by"], rejected["update_ids"]) == ("multi_krum", [attacker.pk])
    assert (published["updates"], published["rejected"], published["clipped"]) == (6, 1, 0)


def test_an_update_that_waits_has_no_verdict() -> None:
    model = experiment()

    update = send_body(
        model, make_client(model).client, JsonBody(weights()), UpdateFacts(base_aggregate_id=0)
    )

    update.refresh_from_db()
    assert (update.verdict, update.verdict_by, update.weight_used) == (None, None, None)


@pytest.mark.parametrize(("rule", "statements"), [("median", 1), ("mean", 2)])
def test_the_verdicts_are_written_in_one_statement_or_two(rule: str, statements: int) -> None:
    model = experiment(aggregator=rule, aggregator_params={})
    for number, client in enumerate(clients_of(model)):
        facts = UpdateFacts(base_aggregate_id=0, num_examples=number + 1)
        send_body(model, client, JsonBody(weights(float(number))), facts)

    with CaptureQueriesContext(connection) as captured:
        aggregate_now(model)

    written = [
        query["sql"] for query in captured if "UPDATE" in query["sql"] and "weight_used" in query["sql"]
    ]
    assert len(written) == statements
    assert len({row.weight_used for row in ModelUpdate.objects.all()}) == (6 if rule == "mean" else 1)


def test_the_record_has_the_words_of_the_engine() -> None:
    assert UpdateVerdict.values == list(get_args(Verdict))
