"""The effects of a model's strategy on its rounds: when they are due, how they are computed, and refusals."""

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from fma_core.arrays.codecs.safetensors import encode
from fma_core.errors import InvalidStrategy, MissingArray, SpecMismatch, UnexpectedArray
from fma_django.clients.registration import revoke_client
from fma_django.errors import InvalidValue, NoInitialModel
from fma_django.experiments.changes import change_federated_model, set_initial_model
from fma_django.models import Client, FederatedModel, ModelUpdate, Round
from fma_django.models.model_update import UpdateStatus
from fma_django.models.round import RoundState
from fma_django.record.weights import JsonBody, SafetensorsBody
from fma_django.rounds import claiming, leases
from fma_django.rounds.aggregation import aggregate_round
from fma_django.storage import get_store
from fma_django.updates.facts import INITIAL
from fma_django.updates.intake import UpdateFacts
from tests.django.stored import weights_of
from tests.records import (
    WEIGHTS,
    aggregate_now,
    arrays,
    change_now,
    make_client,
    make_model,
    send_body,
    send_update,
    weights,
)

pytestmark = pytest.mark.django_db

SGD: Mapping[str, Any] = {"name": "sgd"}
EXCLUDE_B: Mapping[str, Any] = {"name": "exclude", "patterns": ["b"]}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rounds whose aggregation was asked for."""
    found: list[int] = []
    monkeypatch.setattr("fma_django.queue.aggregate_on_commit", found.append)
    return found


def some_clients(model: FederatedModel, count: int) -> list[Client]:
    return [make_client(model).client for _ in range(count)]


def send(
    model: FederatedModel, client: Client, data: Any = None, metrics: dict[str, Any] | None = None
) -> ModelUpdate:
    current = FederatedModel.objects.get(pk=model.pk)
    body = JsonBody(weights() if data is None else data)
    return send_body(current, client, body, UpdateFacts(metrics=metrics or {}))


def collecting(model: FederatedModel) -> Round:
    return model.rounds.get(state=RoundState.COLLECTING)


def status_of(update: ModelUpdate) -> tuple[UpdateStatus, str]:
    update.refresh_from_db()
    return UpdateStatus(update.status), update.status_reason


# When a round is due


def test_a_rule_holds_its_round_open_until_it_has_enough(asked: list[int]) -> None:
    model = make_model(
        initial_model=WEIGHTS,
        aggregator="krum",
        aggregator_params={"f": 1},
        requirement="require_x_updates",
        requirement_args=[2],
    )
    people = some_clients(model, 5)
    for client in people[:4]:
        send(model, client)
    assert asked == []
    assert claiming.claim(collecting(model).pk) is None
    assert collecting(model).ready_on is None
    send(model, people[4])
    assert asked == [collecting(model).pk]
    assert aggregate_now(model).round.num_updates == 5


def test_bucketing_asks_for_more_of_its_rule(asked: list[int]) -> None:
    model = make_model(
        initial_model=WEIGHTS,
        aggregator="krum",
        aggregator_params={"f": 0},
        stages=[{"name": "bucketing", "size": 2}],
    )
    people = some_clients(model, 5)
    for client in people[:4]:
        send(model, client)
    assert asked == []
    send(model, people[4])
    assert aggregate_now(model).round.num_updates == 5


def test_an_unreadable_update_may_leave_too_few_for_the_rule() -> None:
    model = make_model(initial_model=WEIGHTS, aggregator="krum", aggregator_params={"f": 1})
    for client in some_clients(model, 5):
        last = send(model, client, weights(client.pk.int % 7))
    due = collecting(model)
    get_store().delete(last.sha256)
    assert aggregate_round(due.pk) is None
    due.refresh_from_db()
    assert (due.state, due.failure_code, due.num_updates) == (RoundState.FAILED, "unreadable_update", 4)
    assert "requirement is not met" in due.failure_detail
    assert not model.aggregates.exists()
    for client in model.clients.all():
        send(model, client)
    assert aggregate_now(model).round.number == 2


def test_a_rule_that_needs_fewer_makes_the_round_due_at_once(asked: list[int]) -> None:
    model = make_model(initial_model=WEIGHTS, aggregator="krum", aggregator_params={"f": 1})
    sent = [send(model, client) for client in some_clients(model, 2)]
    assert asked == []
    change_now(model, {"aggregator": "mean", "aggregator_params": {}})
    assert asked == [collecting(model).pk]
    aggregate = aggregate_now(model)
    assert [status_of(update)[0] for update in sent] == [UpdateStatus.COMPLETE] * 2
    assert weights_of(aggregate)["b"].tolist() == [1.0, 1.0]


def test_a_rule_that_needs_more_holds_a_round_that_was_due(asked: list[int]) -> None:
    model = make_model(initial_model=WEIGHTS)
    send(model, make_client(model).client)
    assert collecting(model).ready_on is not None
    change_now(model, {"aggregator": "krum", "aggregator_params": {"f": 1}})
    assert collecting(model).ready_on is None
    assert claiming.claim(collecting(model).pk) is None


def all_but_the_root_answered(num_others: int) -> tuple[FederatedModel, Client]:
    model = make_model(initial_model=WEIGHTS)
    root, *others = some_clients(model, num_others + 1)
    change_federated_model(
        model, {"aggregator": "fltrust", "aggregator_params": {"root_client": str(root.pk)}}
    )
    for client in others:
        send(model, client)
    return model, root


def test_fltrust_waits_for_its_root_client(asked: list[int]) -> None:
    model, root = all_but_the_root_answered(3)
    assert asked == []
    assert collecting(model).waits_for == f"an update of the client that the rule needs: {root.pk}"
    send(model, root)
    assert asked == [collecting(model).pk]
    assert collecting(model).waits_for == ""
    assert aggregate_now(model).round.num_updates == 4


def test_a_round_says_that_its_root_client_is_gone(asked: list[int]) -> None:
    model, root = all_but_the_root_answered(3)
    revoke_client(root)
    assert collecting(model).waits_for.endswith(f"{root.pk}, which is not registered or is revoked")
    assert asked == []


def test_fltrust_without_a_readable_update_of_its_root_client_fails_the_round() -> None:
    model, root = all_but_the_root_answered(2)
    get_store().delete(send(model, root, weights(5.0)).sha256)
    due = collecting(model)
    assert aggregate_round(due.pk) is None
    due.refresh_from_db()
    assert (due.state, due.failure_code) == (RoundState.FAILED, "unreadable_update")


@pytest.mark.parametrize("root", ["nobody", "00000000-0000-4000-8000-000000000000", "capitals"])
def test_a_root_client_that_no_update_can_come_from_is_refused(root: str) -> None:
    client = make_client().client
    name = str(client.pk).upper() if root == "capitals" else root
    with pytest.raises(InvalidStrategy, match=f"no client {name}|must be written as {client.pk}") as refused:
        make_model(aggregator="fltrust", aggregator_params={"root_client": name})
    assert refused.value.facts["field"] == "aggregator_params"


# What a round starts from


@pytest.mark.parametrize(
    "options",
    [{"optimiser": SGD}, {"update_kind": "delta"}, {"stages": [EXCLUDE_B]}, {"aggregator": "fedbuff"}],
    ids=str,
)
def test_what_acts_on_changes_needs_a_model_to_start_from(options: dict[str, Any]) -> None:
    model = make_model(**options)
    ann = make_client(model).client
    with pytest.raises(NoInitialModel):
        send(model, ann)
    assert not ModelUpdate.objects.exists()
    set_initial_model(model, JsonBody(weights(3.0)))
    update = {"w": weights()["w"]} if "stages" in options else weights()
    send(model, ann, update)
    aggregate = aggregate_now(model)
    assert (
        weights_of(aggregate)["w"].tolist()
        == [
            [4.0 if "update_kind" in options else 1.0] * 2,
        ]
        * 2
    )


@pytest.mark.parametrize("aggregator", ["mean", "median"])
def test_rules_that_do_not_care_where_the_model_is_begin_without_one(aggregator: str) -> None:
    model = make_model(aggregator=aggregator)
    send(model, make_client(model).client, weights(2.0))
    assert weights_of(aggregate_now(model))["b"].tolist() == [2.0, 2.0]


def test_an_initial_model_is_all_that_waiting_updates_may_wait_for(asked: list[int]) -> None:
    model = make_model(allow_aggregation=False)
    send(model, make_client(model).client)
    change_federated_model(model, {"optimiser": SGD, "allow_aggregation": True})
    assert asked == []
    assert claiming.claim(collecting(model).pk) is None
    model.refresh_from_db()
    set_initial_model(model, JsonBody(weights(3.0)))
    assert asked == [collecting(model).pk]
    assert weights_of(aggregate_now(model))["b"].tolist() == [1.0, 1.0]


def test_an_initial_model_that_the_strategy_cannot_work_on_is_refused() -> None:
    stages = [{"name": "exclude", "patterns": ["*"]}]
    with pytest.raises(InvalidStrategy, match="no array"):
        make_model(stages=stages, initial_model=WEIGHTS)
    assert not FederatedModel.objects.exists()
    model = make_model(stages=stages)
    with pytest.raises(InvalidStrategy, match="no array"):
        set_initial_model(model, JsonBody(WEIGHTS))
    model.refresh_from_db()
    assert (model.current_artifact, model.spec) == (None, None)


@pytest.mark.parametrize("spoil", ["delete", "shorten"])
def test_a_start_that_cannot_be_read_fails_the_round_with_nothing_half_written(spoil: str) -> None:
    model = make_model(initial_model=WEIGHTS, optimiser=SGD)
    ann = make_client(model).client
    update = send(model, ann)
    artifact = FederatedModel.objects.get(pk=model.pk).current_artifact
    assert artifact is not None
    spoil_blob(artifact.sha256, spoil)
    due = collecting(model)
    assert aggregate_round(due.pk) is None
    due.refresh_from_db()
    assert (due.state, due.failure_code) == (RoundState.FAILED, "unreadable_model")
    assert status_of(update)[0] == UpdateStatus.FAILED
    assert not model.aggregates.exists()
    assert list(get_store().spool_dir().iterdir()) == []
    # A mean of weights does not look at it, and mends the model.
    change_federated_model(model, {"optimiser": None})
    send(model, ann)
    aggregate_now(model)
    change_federated_model(model, {"optimiser": SGD})
    send_update(model, ann, weights(2.0), base_aggregate=model.aggregates.get())
    assert weights_of(aggregate_now(model))["b"].tolist() == [2.0, 2.0]


def spoil_blob(sha256: str, how: str) -> None:
    path = get_store().local_path(sha256)
    assert path is not None
    if how == "delete":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])


# What updates are measured from


def test_stale_updates_are_measured_from_their_own_bases() -> None:
    model = make_model(
        initial_model={"w": [10.0, 20.0]},
        aggregator="fedbuff",
        requirement="require_x_updates",
        requirement_args=[4],
        furthest_base_agg=3,
    )
    people = some_clients(model, 4)
    first, second, third = played(model, people, 3)
    fourth = {"w": [3.0, 1.0]}
    sent = {first: [1.5, 2.0], second: [-4.0, 8.0], third: [0.25, 0.5]}
    for client, (base, values) in zip(people, sent.items(), strict=False):
        send_update(model, client, {"w": values}, base_aggregate=base)
    # The initial model is older than the third newest.
    stale = send_update(model, people[3], fourth, base_aggregate=INITIAL)
    assert stale.status == UpdateStatus.INVALID
    send_update(model, people[3], fourth, base_aggregate=third)

    merged = weights_of(aggregate_now(model))["w"]

    rows = [np.array(values) - weights_of(base)["w"] for base, values in sent.items()]
    rows.append(np.array(fourth["w"]) - weights_of(third)["w"])
    discounts = 1 / np.sqrt(1 + np.array([2, 1, 0, 0]))
    expected = weights_of(third)["w"] + (discounts[:, None] * rows).sum(axis=0) / 4
    np.testing.assert_allclose(merged, expected, rtol=1e-14)


def played(model: FederatedModel, people: list[Client], num_rounds: int) -> list[Any]:
    aggregates: list[Any] = []
    for number in range(num_rounds):
        for place, client in enumerate(people):
            base = aggregates[-1] if aggregates else None
            send_update(model, client, {"w": [number + 0.5 * place, 7.0 - number]}, base_aggregate=base)
        aggregates.append(aggregate_now(model))
    return aggregates


def test_an_update_from_the_initial_model_is_measured_from_it() -> None:
    model = make_model(initial_model={"w": [10.0, 20.0]}, optimiser=SGD)
    ann = make_client(model).client
    for expected in ([11.0, 22.0], [12.0, 24.0]):
        send_update(model, ann, {"w": [11.0, 22.0]}, base_aggregate=INITIAL)
        np.testing.assert_array_equal(weights_of(aggregate_now(model))["w"], expected)


def test_no_base_is_the_start_of_the_round_for_a_model_that_was_given_none() -> None:
    model = make_model()
    ann = make_client(model).client
    send(model, ann, {"w": [10.0, 20.0]})
    aggregate_now(model)
    change_federated_model(model, {"optimiser": {"name": "sgd", "learning_rate": 0.5}})
    send(model, ann, {"w": [12.0, 20.0]})
    np.testing.assert_array_equal(weights_of(aggregate_now(model))["w"], [11.0, 20.0])


def test_deltas_are_added_to_the_model() -> None:
    model = make_model(
        initial_model={"w": [10.0, 20.0], "n": [5]},
        spec={"w": {"shape": [2], "dtype": "float64"}, "n": {"shape": [1], "dtype": "int64"}},
        update_kind="delta",
        requirement="require_x_updates",
        requirement_args=[2],
    )
    people = some_clients(model, 2)
    send_update(model, people[0], {"w": [1.0, -1.0], "n": [8]}, num_examples=3)
    send_update(model, people[1], {"w": [5.0, 3.0], "n": [12]}, num_examples=1)
    merged = weights_of(aggregate_now(model))
    np.testing.assert_array_equal(merged["w"], [12.0, 20.0])
    assert merged["n"].tolist() == [9]  # integers are always values


@pytest.mark.parametrize("spoil", ["delete", "shorten"])
def test_a_base_that_cannot_be_read_costs_its_updates(spoil: str) -> None:
    model = make_model(
        initial_model={"w": [0.0]},
        aggregator="fedbuff",
        requirement="require_x_updates",
        requirement_args=[1],
    )
    people = some_clients(model, 3)
    old, newest = played_once(model, people[0], 3.0), played_once(model, people[0], 5.0)
    change_federated_model(model, {"requirement_args": [3], "allow_aggregation": False})
    stale = [send_update(model, client, {"w": [9.0]}, base_aggregate=old) for client in people[:2]]
    send_update(model, people[2], {"w": [6.0]}, base_aggregate=newest)
    change_federated_model(model, {"requirement_args": [1], "allow_aggregation": True})
    spoil_blob(old.sha256, spoil)

    merged = aggregate_now(model)

    np.testing.assert_array_equal(weights_of(merged)["w"], weights_of(newest)["w"] + 6.0 - 5.0)
    for update in stale:
        status, reason = status_of(update)
        assert status == UpdateStatus.FAILED
        assert reason
    assert merged.round.num_updates == 1


def played_once(model: FederatedModel, client: Client, value: float) -> Any:
    newest = model.aggregates.order_by("pk").last()
    base = 0.0 if newest is None else float(weights_of(newest)["w"][0])
    send_update(model, client, {"w": [value]}, base_aggregate=newest)
    aggregate = aggregate_now(model)
    assert weights_of(aggregate)["w"][0] == base + (value - base)
    return aggregate


# What a strategy asks of updates


def test_the_strategy_of_a_claimed_round_is_written_on_it() -> None:
    model = make_model(initial_model=WEIGHTS, requirement="require_x_updates", requirement_args=[3])
    for value, client in zip((1.0, 2.0, 9.0), some_clients(model, 3), strict=True):
        send(model, client, weights(value))
    due = collecting(model)
    lease = claiming.claim(due.pk)
    assert lease is not None
    change_federated_model(
        model, {"aggregator": "median", "update_kind": "delta", "requirement_args": [30], "optimiser": SGD}
    )
    leases.release(lease)
    aggregate = aggregate_round(due.pk)
    assert aggregate is not None
    assert weights_of(aggregate)["b"].tolist() == [4.0, 4.0]


@pytest.mark.parametrize(
    "changes",
    [
        {"update_kind": "delta"},
        {"stages": [EXCLUDE_B]},
        {"aggregator": "qfedavg"},
        {"aggregator": "scaffold"},
    ],
    ids=str,
)
def test_updates_that_the_new_strategy_does_not_ask_for_are_dropped(changes: dict[str, Any]) -> None:
    model = make_model(initial_model=WEIGHTS, requirement="require_x_updates", requirement_args=[3])
    ann = make_client(model).client
    update = send(model, ann)
    change_now(model, changes)
    status, reason = status_of(update)
    assert status == UpdateStatus.INVALID
    assert "changed after it had been sent" in reason
    assert collecting(model).num_updates == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"aggregator": "median"},
        {"optimiser": {"name": "fedadam"}},
        {"stages": [{"name": "clip_norm", "max_norm": 1.0}]},
        {"stages": [{"name": "exclude", "patterns": ["another"]}]},
        {"staleness": {"name": "hinge"}},
        {"name": "renamed"},
    ],
    ids=str,
)
def test_updates_that_the_new_strategy_asks_for_too_are_kept(changes: dict[str, Any]) -> None:
    model = make_model(initial_model=WEIGHTS, requirement="require_x_updates", requirement_args=[3])
    update = send(model, make_client(model).client)
    change_federated_model(model, changes)
    assert status_of(update) == (UpdateStatus.PENDING, "")
    assert collecting(model).num_updates == 1


def test_of_waiting_updates_those_with_the_metrics_of_the_new_rule_are_kept() -> None:
    model = make_model(initial_model=WEIGHTS, requirement="require_x_updates", requirement_args=[5])
    metrics: list[dict[str, Any]] = [{"base_loss": 0.5}, {"base_loss": 0.0}, {"base_loss": "low"}, {}]
    sent = [
        send(model, client, metrics=said)
        for client, said in zip(some_clients(model, 4), metrics, strict=True)
    ]
    change_now(model, {"aggregator": "qfedavg", "aggregator_params": {"q": 2.0}})
    pending, invalid = UpdateStatus.PENDING, UpdateStatus.INVALID
    assert [status_of(update)[0] for update in sent] == [pending, pending, invalid, invalid]
    # A loss of 0 keeps the model where it is when q is below 1.
    change_now(model, {"aggregator_params": {"q": 0.5}})
    assert [status_of(update)[0] for update in sent] == [pending, invalid, invalid, invalid]
    assert collecting(model).num_updates == 1


@pytest.mark.parametrize(
    "value",
    [True, "1", None, [], 10**400, float("nan"), float("inf"), -1.0, 0, 2**70],
    ids=lambda v: str(v)[:9],
)
def test_metrics_that_the_rule_can_do_nothing_with_are_refused(value: object) -> None:
    model = make_model(initial_model=WEIGHTS, aggregator="fednova")
    ann = make_client(model).client
    with pytest.raises(InvalidValue) as refused:
        send(model, ann, metrics={"num_steps": value})
    assert refused.value.facts["field"] == "metrics"
    with pytest.raises(InvalidValue, match="num_steps"):
        send(model, ann)
    assert not ModelUpdate.objects.exists()
    send(model, ann, metrics={"num_steps": 4, "else": "ignored"})
    aggregate_now(model)


def changing(model: FederatedModel, changes: dict[str, Any]) -> SafetensorsBody:
    """A body during whose journey the model is changed."""
    data = encode(arrays())
    source = io.BytesIO(data)
    left = [changes]

    def read(size: int) -> bytes:
        if left:
            change_federated_model(FederatedModel.objects.get(pk=model.pk), left.pop())
        return source.read(size)

    return SafetensorsBody(read, len(data))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"aggregator": "qfedavg"}, InvalidValue),
        ({"update_kind": "delta"}, InvalidValue),
        ({"stages": [EXCLUDE_B]}, UnexpectedArray),
        ({"aggregator": "scaffold"}, MissingArray),
    ],
    ids=str,
)
def test_an_update_on_its_way_while_the_strategy_changes_is_refused(
    changes: dict[str, Any], error: type[Exception]
) -> None:
    model = make_model(initial_model=WEIGHTS)
    ann = make_client(model).client
    with pytest.raises(error):
        send_body(model, ann, changing(model, changes))
    assert not ModelUpdate.objects.exists()


def test_an_update_on_its_way_while_another_rule_is_chosen_is_taken() -> None:
    model = make_model(initial_model=WEIGHTS)
    ann = make_client(model).client
    send_body(model, ann, changing(model, {"aggregator": "median"}))
    assert aggregate_now(model).round.strategy["aggregator"]["name"] == "median"


def test_an_update_whose_metrics_were_lost_is_left_out() -> None:
    model = make_model(initial_model=WEIGHTS, aggregator="fednova")
    change_federated_model(model, {"requirement": "require_x_updates", "requirement_args": [1]})
    kept, lost = (
        send(model, client, weights(value), {"num_steps": 1})
        for client, value in zip(some_clients(model, 2), (2.0, 4.0), strict=True)
    )
    ModelUpdate.objects.filter(pk=lost.pk).update(metrics={})
    aggregate = aggregate_now(model)
    assert weights_of(aggregate)["b"].tolist() == [2.0, 2.0]
    status, reason = status_of(lost)
    assert (status, "num_steps" in reason) == (UpdateStatus.FAILED, True)
    assert status_of(kept)[0] == UpdateStatus.COMPLETE


# Arrays that stay, and arrays beside the model's


def as_json(data: dict[str, Any]) -> JsonBody:
    return JsonBody(data)


def as_safetensors(data: dict[str, Any]) -> SafetensorsBody:
    encoded = encode({name: np.array(values) for name, values in data.items()})
    return SafetensorsBody(io.BytesIO(encoded).read, len(encoded))


@pytest.mark.parametrize("body", [as_json, as_safetensors])
@pytest.mark.parametrize("stage", [EXCLUDE_B, {"name": "only", "patterns": ["w*"]}], ids=str)
@pytest.mark.parametrize("optimiser", [None, {"name": "fedadam"}], ids=str)
def test_personal_arrays_stay_as_they_were_given(
    body: Callable[[dict[str, Any]], Any], stage: dict[str, Any], optimiser: dict[str, Any] | None
) -> None:
    model = make_model(initial_model=WEIGHTS, stages=[stage], optimiser=optimiser)
    ann = make_client(model).client
    for value in (5.0, 7.0):
        newest = model.aggregates.order_by("pk").last()
        facts = UpdateFacts(base_aggregate_id=None if newest is None else newest.pk)
        send_body(model, ann, body({"w": weights(value)["w"]}), facts)
        merged = weights_of(aggregate_now(model))
        assert merged["b"].tolist() == WEIGHTS["b"]
        if optimiser is None:
            assert merged["w"].tolist() == [[value, value], [value, value]]
    with pytest.raises(SpecMismatch):
        send_body(model, ann, body(weights()), facts)


LAYOUTS: Mapping[str, Any] = {"array": [1.0, 2.0, 3.0], "layers": [[1.0, 2.0], [3.0]]}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("body", [as_json, as_safetensors])
@pytest.mark.parametrize("schema", [None, {"type": "object"}], ids=str)
def test_arrays_beside_those_of_a_layout_are_sent_by_name(
    layout: str, body: Callable[[dict[str, Any]], Any], schema: Any
) -> None:
    model = make_model(initial_model=LAYOUTS[layout], aggregator="scaffold", update_schema=schema)
    assert model.weights_layout == layout
    spec = model.array_spec
    assert spec is not None
    sent = {array.name: np.full(array.shape, 5.0).tolist() for array in spec.arrays}
    control = {f"control/{name}": values for name, values in sent.items()}
    send_body(model, make_client(model).client, body(sent | control))
    merged = weights_of(aggregate_now(model))
    assert {name: values.tolist() for name, values in merged.items()} == sent
    model.refresh_from_db()
    assert model.weights_layout == layout


def test_layers_without_one_are_sent_by_name() -> None:
    model = make_model(initial_model=LAYOUTS["layers"], stages=[{"name": "exclude", "patterns": ["0"]}])
    send(model, make_client(model).client, {"1": [9.0]})
    merged = weights_of(aggregate_now(model))
    assert (merged["0"].tolist(), merged["1"].tolist()) == ([1.0, 2.0], [9.0])


def test_layouts_stay_lists_for_strategies_that_ask_for_just_the_model() -> None:
    model = make_model(initial_model=LAYOUTS["layers"], optimiser={"name": "fedadam"})
    send(model, make_client(model).client, [[2.0, 2.0], [2.0]])
    assert aggregate_now(model).round.num_updates == 1


# Results


@pytest.mark.parametrize(
    "options", [{"optimiser": SGD}, {"update_kind": "delta"}, {"optimiser": {"name": "fedavgm"}}], ids=str
)
def test_a_result_that_overflows_fails_the_round_and_the_next_one_works(options: dict[str, Any]) -> None:
    model = make_model(
        initial_model={"w": [3e38, 1.0]}, spec={"w": {"shape": [2], "dtype": "float32"}}, **options
    )
    ann = make_client(model).client
    is_delta = "update_kind" in options
    if not is_delta:
        change_federated_model(model, {"optimiser": {**options["optimiser"], "learning_rate": 1e38}})
    update = send(model, ann, {"w": [3e38, 100.0]})
    due = collecting(model)
    assert aggregate_round(due.pk) is None
    due.refresh_from_db()
    assert (due.state, due.failure_code) == (RoundState.FAILED, "non_finite_result")
    assert "array 'w'" in due.failure_detail
    assert status_of(update)[0] == UpdateStatus.FAILED
    assert not model.aggregates.exists()
    if not is_delta:
        change_federated_model(model, {"optimiser": options["optimiser"]})
    send(model, ann, {"w": [1.0, 1.0]})
    assert aggregate_now(model).parent is None


# What receiving costs


def queries_of_an_update(**options: Any) -> int:
    model = make_model(
        initial_model=WEIGHTS, requirement="require_x_updates", requirement_args=[9], **options
    )
    ann = make_client(model).client
    current = FederatedModel.objects.get(pk=model.pk)
    with CaptureQueriesContext(connection) as captured:
        send_body(current, ann, JsonBody(weights()))
    return len(captured)


def test_an_update_takes_no_query_more_than_its_strategy_needs() -> None:
    plain = queries_of_an_update()
    assert queries_of_an_update(aggregator="median") == plain
    # Whether enough clients are there by now for the round to start.
    assert queries_of_an_update(aggregator="krum", aggregator_params={"f": 1}) <= plain + 2
    # Whether there is a model to start from: its newest aggregate, and the artifact.
    assert queries_of_an_update(optimiser=SGD) <= plain + 2
