"""The state of a strategy from round to round: stored with the aggregate, continued by the same optimiser alone."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from fma_core.aggregation.aggregators import Mean, aggregators
from fma_core.aggregation.optimisers import Optimiser, optimisers
from fma_core.aggregation.strategy import Strategy
from fma_core.arrays.codecs.safetensors import encode
from fma_core.arrays.spec import Spec
from fma_core.engine import ModelFile, Serial, UpdateFile, fold
from fma_django.errors import LeaseLost
from fma_django.experiments.changes import change_federated_model, delete_federated_model
from fma_django.models import Client, FederatedModel, ModelAggregate, Round
from fma_django.models.round import RoundState
from fma_django.rounds import aggregation, publishing
from fma_django.rounds.advance import advance
from fma_django.rounds.aggregation import aggregate_round
from fma_django.storage import get_store
from fma_django.work.sweep import sweep_files
from tests.django.stored import bytes_of, state_of, weights_of
from tests.records import aggregate_now, make_client, make_model, send_update

pytestmark = pytest.mark.django_db

FEDADAM: Mapping[str, Any] = {"name": "fedadam", "learning_rate": 0.5}
START = {"b": [0.5, -1.0], "w": [[1.0, 2.0], [3.0, 4.0]]}
SENT = [
    [{"b": [1.0, 1.0], "w": [[0.0, 1.0], [2.0, -3.0]]}, {"b": [2.0, 0.0], "w": [[5.0, 1.0], [2.0, 8.0]]}],
    [{"b": [3.0, 1.5], "w": [[1.0, 1.0], [0.5, 3.0]]}, {"b": [0.1, 0.2], "w": [[5.0, 2.0], [9.0, 8.0]]}],
    [{"b": [9.0, 1.0], "w": [[7.0, 1.0], [2.0, 0.0]]}, {"b": [4.0, 5.0], "w": [[0.2, 1.0], [2.5, 8.0]]}],
]
NUM_EXAMPLES = (3, 1)


@pytest.fixture
def model(db: None) -> FederatedModel:
    """FedAdam on the weighted mean of two."""
    return make_model(
        initial_model=START, optimiser=FEDADAM, requirement="require_x_updates", requirement_args=[2]
    )


@pytest.fixture
def people(model: FederatedModel) -> list[Client]:
    return [make_client(model).client for _ in range(2)]


def send(model: FederatedModel, people: Sequence[Client], number: int) -> Round:
    """The updates of a round (0, 1, 2), trained from the newest aggregate; the round, which is due."""
    newest = model.aggregates.order_by("pk").last()
    for client, sent, num_examples in zip(people, SENT[number], NUM_EXAMPLES, strict=True):
        send_update(model, client, sent, base_aggregate=newest, num_examples=num_examples)
    return model.rounds.get(state=RoundState.COLLECTING)


def play(model: FederatedModel, people: Sequence[Client], *numbers: int) -> list[ModelAggregate]:
    played = []
    for number in numbers:
        send(model, people, number)
        played.append(aggregate_now(model))
    return played


def make_old(storage: Path) -> None:
    for path in storage.rglob("*"):
        if path.is_file():
            os.utime(path, (0, 0))


def fedadam(learning_rates: Sequence[float]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Reddi et al. 2021, algorithm 2, by numpy: x, m and v after as many rounds as there are learning rates."""
    x = {name: np.array(values) for name, values in START.items()}
    m = {name: np.zeros_like(values) for name, values in x.items()}
    v = {name: np.full_like(values, 1e-6) for name, values in x.items()}
    for sent, learning_rate in zip(SENT, learning_rates, strict=False):
        for name in x:
            means = np.average([np.array(update[name]) for update in sent], axis=0, weights=NUM_EXAMPLES)
            delta = means - x[name]
            m[name] = 0.9 * m[name] + 0.1 * delta
            v[name] = 0.99 * v[name] + 0.01 * delta**2
            x[name] = x[name] + learning_rate * m[name] / (np.sqrt(v[name]) + 1e-3)
    return x, m, v


def test_fedadam_over_three_rounds_is_the_papers(model: FederatedModel, people: list[Client]) -> None:
    *_, last = play(model, people, 0, 1, 2)
    x, m, v = fedadam([0.5, 0.5, 0.5])
    state = state_of(last)
    assert state.pop("num_steps") == 3
    for name in START:
        np.testing.assert_allclose(weights_of(last)[name], x[name], rtol=1e-13)
        np.testing.assert_allclose(state.pop(f"optimiser.m/{name}"), m[name], rtol=1e-13)
        np.testing.assert_allclose(state.pop(f"optimiser.v/{name}"), v[name], rtol=1e-13)
    assert state == {}


def test_rounds_through_the_record_have_the_bytes_of_folds_in_one_go(
    model: FederatedModel, people: list[Client], tmp_path: Path
) -> None:
    played = play(model, people, 0, 1, 2)
    strategy = Strategy.build(aggregators.build("mean", {}), optimiser=FEDADAM)
    paths = [tmp_path / name for name in ("start", "weights", "state", "new-weights", "new-state", "0", "1")]
    start, weights, state, new_weights, new_state, *sent = paths
    start.write_bytes(encode({name: np.array(values) for name, values in START.items()}))
    for number, aggregate in enumerate(played):
        for path, update in zip(sent, SENT[number], strict=True):
            path.write_bytes(encode({name: np.array(values) for name, values in update.items()}))
        new_weights.touch()
        new_state.touch()
        folded = fold(
            [UpdateFile(path, n, path.name) for path, n in zip(sent, NUM_EXAMPLES, strict=True)],
            spec=Spec.of({name: np.array(values) for name, values in START.items()}),
            strategy=strategy,
            out=new_weights,
            start=ModelFile(start if number == 0 else weights, "start"),
            state=None if number == 0 else ModelFile(state, "state"),
            state_out=new_state,
            executor=Serial(),
        )
        assert folded.state is not None
        assert (aggregate.sha256, aggregate.state_sha256) == (folded.weights.sha256, folded.state.sha256)
        assert aggregate.state_size_bytes == len(bytes_of(aggregate.state_sha256))
        new_weights.rename(weights)
        new_state.rename(state)


def test_a_strategy_without_state_keeps_none() -> None:
    model = make_model()
    send_update(model, make_client(model).client)
    aggregate = aggregate_now(model)
    assert (aggregate.state_sha256, aggregate.state_size_bytes) == ("", None)


def test_the_state_is_swept_with_its_aggregate_and_not_before(
    model: FederatedModel, people: list[Client], storage: Path
) -> None:
    first, second = play(model, people, 0, 1)
    make_old(storage)
    assert sweep_files() == 0
    assert state_of(first)["num_steps"] == 1
    delete_federated_model(model)
    make_old(storage)
    sweep_files()
    stored = {blob.sha256 for blob in get_store().blobs()}
    assert not {first.state_sha256, second.state_sha256} & stored
    assert stored == set()


@pytest.mark.parametrize("point", ["after_fold", "between_the_files", "before_commit"])
def test_a_retry_publishes_the_same_bytes(
    model: FederatedModel, people: list[Client], monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    other = make_model(
        initial_model=START, optimiser=FEDADAM, requirement="require_x_updates", requirement_args=[2]
    )
    *_, expected = play(other, [make_client(other).client for _ in range(2)], 0, 1)
    play(model, people, 0)
    due = send(model, people, 1)
    with monkeypatch.context() as patch:
        crash_once(patch, point)
        assert aggregate_round(due.pk) is None
    assert model.aggregates.count() == 1
    Round.objects.filter(pk=due.pk).update(lease_expires_at=due.opened_on)

    retried = aggregate_round(due.pk)

    assert retried is not None
    assert (retried.sha256, retried.state_sha256) == (expected.sha256, expected.state_sha256)
    due.refresh_from_db()
    assert due.attempts == 2


def crash_once(patch: pytest.MonkeyPatch, point: str) -> None:
    """Let the worker lose its round at a point, with what it wrote until then."""

    def die_after(call: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            call(*args, **kwargs)
            raise LeaseLost("the worker died")

        return wrapped

    if point == "after_fold":
        patch.setattr(aggregation, "fold_round", die_after(aggregation.fold_round))  # type: ignore[attr-defined]
    elif point == "between_the_files":
        store = get_store()
        patch.setattr(type(store), "put_file", die_after(type(store).put_file))
    else:
        patch.setattr(publishing, "advance", die_after(advance))


def test_other_hyper_parameters_go_on_from_the_state(model: FederatedModel, people: list[Client]) -> None:
    play(model, people, 0)
    change_federated_model(model, {"optimiser": {"name": "fedadam", "learning_rate": 0.125}})
    (second,) = play(model, people, 1)
    x, _m, _v = fedadam([0.5, 0.125])
    np.testing.assert_allclose(weights_of(second)["w"], x["w"], rtol=1e-13)
    assert state_of(second)["num_steps"] == 2


def test_another_rule_goes_on_from_the_state_of_the_optimiser(
    model: FederatedModel, people: list[Client]
) -> None:
    play(model, people, 0)
    change_federated_model(model, {"aggregator": "median"})
    (second,) = play(model, people, 1)
    assert state_of(second)["num_steps"] == 2


@pytest.mark.parametrize("other", ["fedyogi", "fedadagrad", "fedavgm"])
def test_another_optimiser_starts_afresh(model: FederatedModel, people: list[Client], other: str) -> None:
    play(model, people, 0)
    change_federated_model(model, {"optimiser": {"name": other}})
    (second,) = play(model, people, 1)
    assert state_of(second)["num_steps"] == 1
    change_federated_model(model, {"optimiser": FEDADAM})
    (third,) = play(model, people, 2)
    assert state_of(third)["num_steps"] == 1


def test_other_arrays_start_afresh(model: FederatedModel, people: list[Client]) -> None:
    (first,) = play(model, people, 0)
    change_federated_model(model, {"stages": [{"name": "exclude", "patterns": ["b"]}]})
    for client, sent in zip(people, SENT[1], strict=True):
        send_update(model, client, {"w": sent["w"]}, base_aggregate=first)
    assert set(state_of(aggregate_now(model))) == {"num_steps", "optimiser.m/w", "optimiser.v/w"}


def test_a_round_that_failed_leaves_the_state_as_it_was(model: FederatedModel, people: list[Client]) -> None:
    (first,) = play(model, people, 0)
    for client in people:
        send_update(model, client, {**SENT[0][0], "b": [1.7e308, -1.7e308]}, base_aggregate=first)
    failing = model.rounds.get(state=RoundState.COLLECTING)
    assert aggregate_round(failing.pk) is None
    failing.refresh_from_db()
    assert (failing.state, failing.failure_code) == (RoundState.FAILED, "non_finite_result")
    (second,) = play(model, people, 1)
    x, _m, _v = fedadam([0.5, 0.5])
    np.testing.assert_allclose(weights_of(second)["w"], x["w"], rtol=1e-13)


def delete(sha256: str) -> None:
    get_store().delete(sha256)


def damage(sha256: str) -> None:
    path = get_store().local_path(sha256)
    assert path is not None
    path.write_bytes(path.read_bytes().replace(b"num_steps", b"num_\0teps"))


def shorten(sha256: str) -> None:
    path = get_store().local_path(sha256)
    assert path is not None
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("spoil", [delete, damage, shorten])
def test_a_state_that_cannot_be_read_fails_the_round_and_another_optimiser_goes_on(
    model: FederatedModel, people: list[Client], spoil: Callable[[str], None]
) -> None:
    (first,) = play(model, people, 0)
    spoil(first.state_sha256)
    due = send(model, people, 1)
    assert aggregate_round(due.pk) is None
    due.refresh_from_db()
    assert (due.state, due.failure_code) == (RoundState.FAILED, "unreadable_model")
    assert "the state before the round" in due.failure_detail
    change_federated_model(model, {"optimiser": {"name": "fedyogi"}})
    (second,) = play(model, people, 1)
    assert (second.parent, state_of(second)["num_steps"]) == (first, 1)


@dataclass(frozen=True)
class Heavy(Optimiser):
    """An optimiser of a plugin, with states of the same names as FedAdam's."""

    source: ClassVar[str] = "a plugin"

    @property
    def states(self) -> Mapping[str, float]:
        return {"m": 0.0, "v": 0.0}

    def step(self, delta: Any, state: Mapping[str, Any], num_steps: int) -> Any:
        return delta


def test_a_model_goes_on_without_the_plugin_of_its_last_optimiser(
    model: FederatedModel, people: list[Client]
) -> None:
    with optimisers.register_temporarily("heavy", Heavy):
        change_federated_model(model, {"optimiser": {"name": "heavy"}})
        play(model, people, 0)
        change_federated_model(model, {"optimiser": FEDADAM})
    (second,) = play(model, people, 1)
    assert state_of(second)["num_steps"] == 1


def test_the_optimiser_goes_on_when_the_plugin_of_the_last_rule_is_gone(
    model: FederatedModel, people: list[Client]
) -> None:
    with aggregators.register_temporarily("other_mean", Mean):
        change_federated_model(model, {"aggregator": "other_mean"})
        play(model, people, 0)
        change_federated_model(model, {"aggregator": "mean"})
    (second,) = play(model, people, 1)
    assert state_of(second)["num_steps"] == 2


def test_control_variates_are_kept_with_the_aggregate(db: None) -> None:
    model = make_model(
        initial_model={"w": [1.0, 2.0]},
        aggregator="scaffold",
        requirement="require_x_updates",
        requirement_args=[2],
    )
    people = [make_client(model).client for _ in range(4)]
    last = None
    for sent in ([1.0, 0.5], [3.0, -0.5]):
        for client in people[:2]:
            data = {"w": [sent[0], sent[0]], "control/w": [sent[1], 2 * sent[1]]}
            send_update(model, client, data, base_aggregate=last)
        last = aggregate_now(model)
        change_federated_model(model, {"optimiser": {"name": "sgd", "learning_rate": 0.5}})
    assert last is not None
    # Two of four clients answered: c moves by half of what they sent, and back again.
    np.testing.assert_array_equal(state_of(last)["aggregator.c/w"], [0.0, 0.0])
    np.testing.assert_array_equal(weights_of(last)["w"], [2.0, 2.0])
    assert state_of(last)["num_steps"] == 2
