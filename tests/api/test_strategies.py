"""A model's strategy over HTTP: what is taken, and what is refused under which field."""

from typing import Any

import orjson
import pytest
from rest_framework.test import APIClient

from fma_django.clients.registration import Registration
from fma_django.models import FederatedModel, ModelUpdate
from tests.api.callers import API, as_client
from tests.records import WEIGHTS, aggregate_now, make_client, make_model, weights

MODELS = f"{API}models/"
UPDATES = f"{API}model_updates/"
pytestmark = pytest.mark.django_db

BN = {"name": "exclude", "patterns": ["bn.*"]}
CLIP = {"name": "clip_norm", "max_norm": 10.0}
NNM = {"name": "nnm", "f": 1}
ADAM = {"name": "fedadam"}
POLYNOMIAL = {"name": "polynomial"}


def test_a_model_takes_a_strategy_and_gives_it_back(owner: APIClient) -> None:
    asked = {
        "aggregator": "krum",
        "aggregator_params": {"f": 2},
        "stages": [BN, CLIP],
        "optimiser": {"name": "fedadam", "learning_rate": 0.01},
        "update_kind": "delta",
        "array_policies": {"head.*": "kept"},
    }

    created = owner.post(MODELS, {"name": "m", **asked})

    assert created.status_code == 201, created.content
    said = owner.get(f"{MODELS}{created.json()['id']}/").json()
    assert asked.items() <= said.items()
    assert (said["staleness"], said["min_updates"]) == (None, 7)


def test_an_update_that_names_no_base_is_told_what_to_send() -> None:
    model = make_model(initial_model=WEIGHTS, optimiser={"name": "sgd"})
    caller = as_client(make_client(model))
    first = caller.post(UPDATES, {"federated_model": model.pk, "data": weights(2.0)})
    newest = aggregate_now(model).pk

    refused = caller.post(UPDATES, {"federated_model": model.pk, "data": weights(2.0)})

    assert first.status_code == 201
    assert (refused.status_code, refused.json()["code"]) == (422, "base_aggregate_required")
    assert f"the newest is {newest}" in refused.json()["base_aggregate"][0]
    for base in (newest, 0):
        taken = caller.post(
            UPDATES, {"federated_model": model.pk, "data": weights(2.0), "base_aggregate": base}
        )
        assert (taken.status_code, taken.json()["base_aggregate"]) == (201, base or None)


def test_a_model_without_a_strategy_averages_weights(owner: APIClient) -> None:
    said = owner.post(MODELS, {"name": "m", "aggregator": "mean"}).json()

    assert (said["stages"], said["optimiser"], said["staleness"]) == ([], None, None)
    assert (said["update_kind"], said["min_updates"]) == ("weights", 1)


@pytest.mark.parametrize(
    ("asked", "field", "what"),
    [
        ({"optimizer": ADAM}, "optimizer", "did you mean 'optimiser'?"),
        ({"stage": [CLIP]}, "stage", "did you mean 'stages'?"),
        ({"optimiser": "fedadam"}, "optimiser", '{"name": "fedadam"}'),
        ({"update_kind": "deltas"}, "update_kind", "must be one of weights, delta"),
        ({"array_policy": {}}, "array_policy", "did you mean 'array_policies'?"),
        ({"array_policies": {"w": "keep"}}, "array_policies", "did you mean 'kept'?"),
        (
            {"array_policies": {"wieght": "kept"}, "initial_model": {"weight": [1.0]}},
            "array_policies",
            "did you mean 'weight'?",
        ),
        (
            {"spec": {"trees": {"shape": [9], "dtype": "uint8"}}},
            "array_policies",
            "does not say what they mean",
        ),
    ],
)
def test_what_is_misspelt_is_refused_with_what_was_meant(
    owner: APIClient, asked: dict[str, Any], field: str, what: str
) -> None:
    answer = owner.post(MODELS, {"name": "m", "aggregator": "mean", **asked})

    assert answer.status_code == 400
    assert what in answer.json()[field][0]
    assert not FederatedModel.objects.exists()


def test_stages_add_to_the_least_number_of_updates(owner: APIClient) -> None:
    asked = {
        "aggregator": "krum",
        "aggregator_params": {"f": 1},
        "stages": [{"name": "bucketing", "size": 3}],
    }

    assert owner.post(MODELS, {"name": "m", **asked}).json()["min_updates"] == 13


WRONG = [
    # Parts that nobody knows
    ({"stages": [{"name": "clip"}]}, "stages", "unknown_part", "clip_norm"),
    ({"optimiser": {"name": "adam"}}, "optimiser", "unknown_part", "fedadam"),
    ({"staleness": {"name": "linear"}}, "staleness", "unknown_part", "hinge"),
    ({"stages": [{"name": ["clip_norm"]}]}, "stages", "unknown_part", ""),
    ({"optimiser": {"name": None}}, "optimiser", "unknown_part", ""),
    # Parameters that a part does not have, or not so
    ({"aggregator": "trimmed_mean", "aggregator_params": {"beta": 0.5}}, "aggregator_params", "", "less than 0.5"),
    ({"aggregator": "krum"}, "aggregator_params", "invalid_parameter", "'f' of aggregator 'krum' is missing"),
    ({"aggregator": "krum", "aggregator_params": {"f": 1.0}}, "aggregator_params", "", "an integer"),
    ({"aggregator": "krum", "aggregator_params": {"f": True}}, "aggregator_params", "", "an integer"),
    ({"aggregator": "krum", "aggregator_params": {"f": "1"}}, "aggregator_params", "", "an integer"),
    ({"aggregator": "krum", "aggregator_params": {"f": -1}}, "aggregator_params", "", "at least 0"),
    ({"stages": [{**CLIP, "norm": 1}]}, "stages", "invalid_parameter", "'norm' of stage 'clip_norm' is unknown"),
    ({"stages": [{"name": "clip_norm", "max_norm": 0}]}, "stages", "invalid_parameter", "greater than 0"),
    ({"stages": [CLIP, {"name": "only", "patterns": []}]}, "stages", "invalid_parameter", "patterns"),
    ({"stages": [{"name": "only", "patterns": "bn.*"}]}, "stages", "invalid_parameter", "a list"),
    ({"optimiser": {**ADAM, "beta1": 1}}, "optimiser", "invalid_parameter", "less than 1"),
    ({"optimiser": {**ADAM, "learning_rate": "fast"}}, "optimiser", "invalid_parameter", "a finite number"),
    ({"staleness": {"name": "hinge", "b": 0.5}}, "staleness", "invalid_parameter", "an integer"),
    # Values that are no parts
    ({"stages": CLIP}, "stages", "invalid_value", "a list"),
    ({"stages": "clip_norm"}, "stages", "invalid_value", "a list"),
    ({"stages": None}, "stages", "invalid", ""),
    ({"stages": ["clip_norm"]}, "stages", "invalid_parameter", "an object"),
    ({"stages": [None]}, "stages", "invalid_parameter", "an object"),
    ({"stages": [[]]}, "stages", "invalid_parameter", "an object"),
    ({"stages": [{}]}, "stages", "invalid_parameter", "name"),
    ({"optimiser": "fedadam"}, "optimiser", "invalid", ""),
    ({"optimiser": {}}, "optimiser", "invalid_parameter", "name"),
    ({"staleness": [POLYNOMIAL]}, "staleness", "invalid", ""),
    ({"update_kind": "gradient"}, "update_kind", "invalid", ""),
    ({"update_kind": None}, "update_kind", "invalid", ""),
    # Parts that cannot go together
    ({"aggregator": "fedasync", "update_kind": "delta"}, "update_kind", "invalid_strategy", "delta"),
    ({"aggregator": "fedasync", "stages": [CLIP]}, "stages", "invalid_strategy", ""),
    ({"aggregator": "fedasync", "optimiser": ADAM}, "optimiser", "invalid_strategy", ""),
    ({"aggregator": "krum", "aggregator_params": {"f": 1}, "staleness": POLYNOMIAL}, "staleness",
     "invalid_strategy", ""),
    ({"aggregator": "median", "staleness": POLYNOMIAL}, "staleness", "invalid_strategy", ""),
    ({"aggregator": "feddyn", "optimiser": ADAM}, "optimiser", "invalid_strategy", ""),
    ({"aggregator": "scaffold", "stages": [NNM]}, "stages", "invalid_strategy", ""),
    ({"aggregator": "qfedavg", "stages": [NNM]}, "stages", "invalid_strategy", ""),
    ({"stages": [NNM], "staleness": POLYNOMIAL}, "staleness", "invalid_strategy", ""),
    ({"spec": {"bn.w": {"shape": [2], "dtype": "float32"}}, "stages": [BN]}, "stages", "invalid_strategy", ""),
    # Hostile values
    ({"stages": [CLIP] * 17}, "stages", "invalid_value", "16"),
    ({"stages": [CLIP] * 10_000}, "stages", "invalid_value", "16"),
    ({"stages": [{"name": "only", "patterns": ["x" * 70_000]}]}, "stages", "invalid_value", "65536"),
    ({"stages": [{"name": "x" * 60_000}]}, "stages", "unknown_part", ""),
    ({"aggregator": "krum", "aggregator_params": {"f": 2**63}}, "aggregator_params", "invalid_strategy", ""),
    ({"aggregator": "krum", "aggregator_params": {"f": 10**30}}, "aggregator_params", "", ""),
    ({"stages": [{"name": "bucketing", "size": 2**62}] * 16, "aggregator": "krum", "aggregator_params": {"f": 0}},
     "stages", "invalid_strategy", "1000000"),
    ({"optimiser": {**ADAM, "tau": 2**63}, "aggregator_params": {"x": {"y": []}}}, "aggregator_params", "", ""),
    ({"optimiser": {"name": "sgd", "learning_rate": {"a": "\x00"}}}, "optimiser", "invalid_value", "NUL"),
    ({"optimiser": {"name": "sgd", "__class__": 1}}, "optimiser", "invalid_parameter", "__class__"),
    ({"aggregator": "mean\x00"}, "aggregator", "", ""),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "field", "code", "expected"), WRONG)
def test_what_cannot_work_is_refused_under_its_field(
    owner: APIClient, wrong: Any, field: str, code: str, expected: str
) -> None:
    answer = owner.post(MODELS, {"name": "m", "aggregator": "mean", **wrong})

    assert answer.status_code == 400, answer.content
    said = answer.json()
    assert said["code"] == code or not code, said
    assert expected in str(said[field][0])
    assert len(answer.content) < 4000
    assert not FederatedModel.objects.exists()


@pytest.mark.parametrize(("wrong", "field", "code", "expected"), WRONG)
def test_a_refused_change_changes_nothing(
    owner: APIClient, model: FederatedModel, wrong: Any, field: str, code: str, expected: str
) -> None:
    before = owner.get(f"{MODELS}{model.pk}/").json()

    answer = owner.patch(f"{MODELS}{model.pk}/", {"name": "other", **wrong})

    assert answer.status_code == 400, answer.content
    assert answer.json()[field]
    assert owner.get(f"{MODELS}{model.pk}/").json() == before


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": "m", "aggregator": "krum", "aggregator_params": {"f": NaN}}',
        b'{"name": "m", "aggregator": "mean", "optimiser": {"name": "sgd", "learning_rate": 1e999}}',
        b'{"name": "m", "aggregator": "mean", "stages": ' + b"[" * 100_000,
        b'{"name": "m", "aggregator": "mean", "stages": ' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"name": "m", "aggregator": "mean", "optimiser": ' + b'{"a":' * 500 + b"1" + b"}" * 501,
        b'{"name": "m", "aggregator": "mean", "optimiser": {"name": "sgd", "learning_rate": 1'
        + b"0" * 400
        + b"}}",
    ],
)
def test_bodies_that_are_hardly_json_are_refused(owner: APIClient, body: bytes) -> None:
    answer = owner.generic("POST", MODELS, body, "application/json")

    assert answer.status_code == 400, answer.content
    assert not FederatedModel.objects.exists()


def test_the_refusal_is_a_problem_that_names_the_field(owner: APIClient) -> None:
    answer = owner.post(MODELS, {"name": "m", "aggregator": "feddyn", "optimiser": ADAM})

    said = answer.json()
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (said["status"], said["code"]) == (400, "invalid_strategy")
    assert said["errors"] == {"optimiser": [said["detail"]]}


def test_put_leaves_what_it_does_not_name(owner: APIClient, alice: Any) -> None:
    model = make_model(alice, optimiser=ADAM, stages=[CLIP], staleness=POLYNOMIAL, update_kind="delta")

    said = owner.put(f"{MODELS}{model.pk}/", {"name": "renamed", "aggregator": "mean"}).json()

    assert said["name"] == "renamed"
    assert (said["optimiser"]["name"], said["stages"], said["update_kind"]) == ("fedadam", [CLIP], "delta")


def test_parts_are_taken_away_again(owner: APIClient, alice: Any) -> None:
    model = make_model(alice, optimiser=ADAM, stages=[CLIP], staleness=POLYNOMIAL)

    none: dict[str, Any] = {"optimiser": None, "staleness": None, "stages": []}
    said = owner.patch(f"{MODELS}{model.pk}/", none).json()

    assert none.items() <= said.items()


def test_a_change_is_judged_with_what_stays(owner: APIClient, alice: Any) -> None:
    model = make_model(alice, optimiser=ADAM)

    refused = owner.patch(f"{MODELS}{model.pk}/", {"aggregator": "feddyn"})
    taken = owner.patch(f"{MODELS}{model.pk}/", {"aggregator": "feddyn", "optimiser": None})

    assert (refused.status_code, taken.status_code) == (400, 200)
    assert refused.json()["optimiser"]


def test_min_updates_is_not_a_developers_to_say(owner: APIClient) -> None:
    assert (
        owner.post(MODELS, {"name": "m", "aggregator": "mean", "min_updates": 5}).json()["min_updates"] == 1
    )


def test_a_model_whose_part_is_gone_can_still_be_read(owner: APIClient, model: FederatedModel) -> None:
    FederatedModel.objects.update(optimiser={"name": "exotic"})

    said = owner.get(f"{MODELS}{model.pk}/").json()

    assert (said["optimiser"], said["min_updates"]) == ({"name": "exotic"}, None)
    assert owner.get(f"{MODELS}{model.pk}/rounds/").json()[0]["client_config"] == {}


# Updates


def client_of(model: FederatedModel) -> APIClient:
    return as_client(make_client(model))


def send(model: FederatedModel, **said: Any) -> Any:
    return client_of(model).post(UPDATES, {"federated_model": model.pk, "data": weights(), **said})


def test_an_update_that_has_nothing_to_start_from_is_refused(alice: Any) -> None:
    model = make_model(alice, optimiser=ADAM)

    answer = send(model)

    assert (answer.status_code, answer.json()["code"]) == (409, "no_initial_model")
    assert not ModelUpdate.objects.exists()


@pytest.mark.parametrize(
    ("aggregator", "metrics"),
    [
        ("fednova", {}),
        ("fednova", {"num_steps": "7"}),
        ("fednova", {"num_steps": 0}),
        ("fednova", {"num_steps": True}),
        ("qfedavg", {"loss": 0.5}),
        ("qfedavg", {"base_loss": None}),
        ("qfedavg", {"base_loss": -1}),
        ("qfedavg", None),
    ],
)
def test_an_update_without_the_metric_of_its_rule_is_refused(
    alice: Any, aggregator: str, metrics: Any
) -> None:
    model = make_model(alice, aggregator=aggregator, initial_model=WEIGHTS)

    answer = send(model, metrics=metrics)

    assert answer.status_code == 400
    assert {"fednova": "num_steps", "qfedavg": "base_loss"}[aggregator] in answer.json()["metrics"][0]
    assert not ModelUpdate.objects.exists()


def test_an_update_with_the_metric_of_its_rule_is_taken(alice: Any) -> None:
    model = make_model(alice, aggregator="fednova", initial_model=WEIGHTS)

    assert send(model, metrics={"num_steps": 12}).status_code == 201


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        ({"w": [[1, 2], [3, 4]]}, 201, None),
        (weights(), 422, "unexpected_array"),
        ({"b": [1, 2]}, 422, ""),
    ],
)
def test_a_personal_array_is_not_taken(alice: Any, data: Any, status: int, code: str | None) -> None:
    model = make_model(alice, stages=[{"name": "exclude", "patterns": ["b"]}], initial_model=WEIGHTS)

    answer = send(model, data=data)

    assert answer.status_code == status, answer.content
    assert code in (None, "", answer.json().get("code"))
    assert ModelUpdate.objects.count() == (1 if status == 201 else 0)


def test_clients_are_told_what_they_need_to_train(device: APIClient, alice: Any, ann: Registration) -> None:
    model = make_model(alice, aggregator="fedprox", aggregator_params={"mu": 0.25})

    [current] = client_of(model).get(f"{MODELS}{model.pk}/rounds/").json()

    assert current["client_config"] == {"mu": 0.25}


def test_a_strategy_of_any_size_is_written_as_it_was_sent(owner: APIClient) -> None:
    body = orjson.dumps({"name": "m", "aggregator": "mean", "stages": [CLIP] * 16})

    answer = owner.generic("POST", MODELS, body, "application/json")

    assert answer.status_code == 201
    assert answer.json()["stages"] == [CLIP] * 16
