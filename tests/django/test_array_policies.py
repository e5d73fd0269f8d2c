"""The policies of a model's arrays on the server: checked when it is saved, kept with its rounds, and obeyed."""

import io
from typing import Any

import numpy as np
import pytest

from fma_core.arrays.codecs.safetensors import encode
from fma_core.errors import InvalidParameter
from fma_django.experiments.changes import change_federated_model, set_initial_model
from fma_django.models import FederatedModel, ModelAggregate
from fma_django.models.round import RoundState
from fma_django.record.weights import SafetensorsBody
from fma_django.rounds.aggregation import aggregate_round
from fma_django.rounds.verification import verify_round
from tests.django.stored import weights_of
from tests.records import aggregate_now, make_client, make_model, send_body, send_update

pytestmark = [pytest.mark.django_db, pytest.mark.untraced]

NORMALISED = {"bn.running_var": [1.0], "w": [0.0]}
FEDADAM = {"name": "fedadam", "learning_rate": 0.1}


def body_of(arrays: dict[str, Any]) -> SafetensorsBody:
    encoded = encode(arrays)
    return SafetensorsBody(io.BytesIO(encoded).read, len(encoded))


def test_a_variance_follows_the_mean_while_fedadam_steps_the_weights() -> None:
    model = make_model(initial_model=NORMALISED, optimiser=FEDADAM)
    client = make_client(model).client
    variance = 1.0
    parent: ModelAggregate | None = None
    for _ in range(12):
        variance = variance * 0.9 + 0.1 * 0.05
        send_update(model, client, {"bn.running_var": [variance], "w": [1.0]}, base_aggregate=parent)
        parent = aggregate_now(model)
        assert weights_of(parent)["bn.running_var"].tolist() == [variance]
    assert parent is not None
    assert 0 < weights_of(parent)["w"][0] != 1


def test_a_negative_variance_fails_the_round_with_its_reason() -> None:
    model = make_model(initial_model=NORMALISED)
    send_update(model, make_client(model).client, {"bn.running_var": [-0.5], "w": [1.0]})
    due = model.rounds.get(state=RoundState.COLLECTING)
    assert aggregate_round(due.pk) is None
    due.refresh_from_db()
    assert (due.state, due.failure_code) == (RoundState.FAILED, "negative_variance")
    update = due.model_updates.get()
    assert due.failure_detail == (
        "array 'bn.running_var' of the result must hold variances of 0 or more; found -0.5; "
        f"update {update.pk} of client {update.client_id} is farthest out there"
    )


def test_clients_do_not_send_what_is_kept() -> None:
    model = make_model(initial_model=NORMALISED, array_policies={"bn.*": "kept"})
    send_update(model, make_client(model).client, {"w": [4.0]})
    aggregate = aggregate_now(model)
    assert weights_of(aggregate)["bn.running_var"].tolist() == [1.0]
    assert weights_of(aggregate)["w"].tolist() == [4.0]


def test_a_round_keeps_its_policies() -> None:
    model = make_model(initial_model=NORMALISED, array_policies={"w": "averaged"}, optimiser=FEDADAM)
    send_update(model, make_client(model).client, {"bn.running_var": [1.0], "w": [4.0]})
    aggregate = aggregate_now(model)
    assert model.rounds.get(number=1).strategy["array_policies"] == {"w": "averaged"}
    change_federated_model(model, {"array_policies": {}})
    assert verify_round(model, 1).is_equal
    assert weights_of(aggregate)["w"].tolist() == [4.0]


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ({"w": "mean"}, "must be one of stepped, averaged, newest, collected, kept; found 'mean'"),
        ({"bn.runing_var": "averaged"}, "did you mean 'bn.running_var'"),
    ],
)
def test_policies_that_cannot_work_are_refused(policies: dict[str, str], message: str) -> None:
    model = make_model(initial_model=NORMALISED)
    with pytest.raises(InvalidParameter, match=message) as raised:
        change_federated_model(model, {"array_policies": policies})
    assert raised.value.facts["field"] == "array_policies"


def test_bytes_that_nobody_explained_are_refused_when_the_model_learns_of_them() -> None:
    trees = {"trees": np.arange(9, dtype=np.uint8)}
    said = "holds uint8, and the model does not say what they mean"
    with pytest.raises(InvalidParameter, match=said):
        make_model(spec={"trees": {"shape": [9], "dtype": "uint8"}})
    model = make_model()
    with pytest.raises(InvalidParameter, match=said):
        set_initial_model(model, body_of(trees))
    with pytest.raises(InvalidParameter, match=said):
        send_body(model, make_client(model).client, body_of(trees))
    assert FederatedModel.objects.get(pk=model.pk).spec is None


def test_bytes_may_be_taken_from_the_newest_update() -> None:
    model = make_model(
        array_policies={"trees": "newest"}, requirement="require_x_updates", requirement_args=[2]
    )
    for sent in (b"first.", b"second"):
        send_body(model, make_client(model).client, body_of({"trees": np.frombuffer(sent, np.uint8)}))
    assert weights_of(aggregate_now(model))["trees"].tobytes() == b"second"


def test_a_typing_error_is_met_by_the_first_weights_too() -> None:
    model = make_model(array_policies={"q": "kept"})
    with pytest.raises(InvalidParameter, match="'q' matches no array"):
        set_initial_model(model, body_of({"w": np.zeros(1)}))
