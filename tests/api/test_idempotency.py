"""`Idempotency-Key`: a creating request that is repeated makes nothing more."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.apps import apps
from django.db import close_old_connections, connection
from rest_framework.test import APIClient

from fma_core.arrays.codecs.safetensors import encode
from fma_django.experiments.changes import change_federated_model
from fma_django.models import (
    Client,
    ClientAggregateScore,
    FederatedModel,
    ModelAggregate,
    ModelArtifact,
    ModelUpdate,
)
from tests.api.callers import API, SAFETENSORS, as_client, as_user
from tests.records import arrays, make_aggregate, make_client, make_model, make_user, weights

KEY = "4d8a2f1e-0000-4000-8000-123456789abc"


class World:
    """A model with an aggregate, its owner and a client: what every creating call needs."""

    def __init__(self) -> None:
        alice = make_user("alice")
        self.model = make_model(alice)
        self.empty = make_model(alice)
        ann = make_client(self.model)
        self.aggregate = make_aggregate(self.model, ann.client)
        self.owner, self.device = as_user(alice), as_client(ann)


Send = Callable[[World, APIClient, str, int], Any]


def _post(caller: APIClient, path: str, body: Any, key: str) -> Any:
    return caller.post(f"{API}{path}", body, headers={"idempotency-key": key})


def send_model(world: World, caller: APIClient, key: str, n: int) -> Any:
    return _post(caller, "models/", {"name": f"m{n}", "aggregator": "mean", "initial_model": [1.0]}, key)


def send_update(world: World, caller: APIClient, key: str, n: int) -> Any:
    said = {"federated_model": world.model.pk, "data": weights(n)}
    return _post(caller, "model_updates/", said, key)


def send_bytes(world: World, caller: APIClient, key: str, n: int) -> Any:
    return caller.generic(
        "POST",
        f"{API}model_updates/?federated_model={world.model.pk}",
        encode(arrays(n)),
        SAFETENSORS,
        HTTP_IDEMPOTENCY_KEY=key,
    )


def send_initial(world: World, caller: APIClient, key: str, n: int) -> Any:
    return caller.generic(
        "POST",
        f"{API}models/{world.empty.pk}/initial_model/",
        encode(arrays(n)),
        SAFETENSORS,
        HTTP_IDEMPOTENCY_KEY=key,
    )


def publish(world: World, caller: APIClient, key: str, n: int) -> Any:
    path = f"model_aggregates/{world.aggregate.pk}/publish_aggregate/"
    return _post(caller, path, {"version": f"1.{n}"}, key)


def report(world: World, caller: APIClient, key: str, n: int) -> Any:
    said = {"aggregate": world.aggregate.pk, "validation_results": {"f1": n}}
    return _post(caller, "client_aggregate_scores/", said, key)


def rewind(world: World, caller: APIClient, key: str, n: int) -> Any:
    # Another aggregate cannot be had so cheaply: another request is one with another member.
    said = {"aggregate": world.aggregate.pk, **({"n": n} if n > 1 else {})}
    return _post(caller, f"models/{world.model.pk}/rewind/", said, key)


def clone(world: World, caller: APIClient, key: str, n: int) -> Any:
    return _post(caller, f"models/{world.model.pk}/clone/", {"name": f"clone {n}"}, key)


CREATING = [
    pytest.param(send_model, "owner", FederatedModel, id="model"),
    pytest.param(send_update, "device", ModelUpdate, id="update"),
    pytest.param(send_bytes, "device", ModelUpdate, id="update in bytes"),
    pytest.param(send_initial, "owner", ModelArtifact, id="initial model"),
    pytest.param(publish, "owner", ModelArtifact, id="artifact"),
    pytest.param(rewind, "owner", ModelAggregate, id="rewinding"),
    pytest.param(clone, "owner", FederatedModel, id="clone"),
    pytest.param(report, "device", ClientAggregateScore, id="score"),
]


@pytest.mark.django_db
@pytest.mark.parametrize(("send", "who", "kind"), CREATING)
def test_the_same_request_answers_the_same_object(send: Send, who: str, kind: Any) -> None:
    world = World()
    caller = getattr(world, who)
    before = kind.objects.count()

    first, second = (send(world, caller, KEY, 1) for _ in range(2))

    assert (first.status_code, second.status_code) == (201, 201), second.content
    assert second.json() == first.json()
    assert kind.objects.count() == before + 1


@pytest.mark.django_db
@pytest.mark.parametrize(("send", "who", "kind"), CREATING)
def test_another_request_with_the_same_key_is_422(send: Send, who: str, kind: Any) -> None:
    world = World()
    caller = getattr(world, who)
    assert send(world, caller, KEY, 1).status_code == 201
    before = kind.objects.count()

    answer = send(world, caller, KEY, 2)

    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert kind.objects.count() == before


@pytest.mark.django_db
def test_a_repeated_update_is_the_same_even_after_its_round() -> None:
    world = World()
    first = send_update(world, world.device, KEY, 5).json()
    make_aggregate(world.model)

    assert send_update(world, world.device, KEY, 5).json()["id"] == first["id"]
    assert send_update(world, world.device, "another", 5).json()["id"] != first["id"]


@pytest.mark.django_db
def test_the_keys_of_two_callers_have_nothing_to_do_with_each_other() -> None:
    world = World()
    other = as_client(make_client(world.model))

    first, second = (send_update(world, caller, KEY, 1).json() for caller in (world.device, other))

    assert first["id"] != second["id"]


@pytest.mark.django_db
@pytest.mark.parametrize("key", ["", "k" * 256, "schlüssel", "a\tb"])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    answer = send_model(World(), as_user(make_user()), key, 1)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_header")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("send", "who", "kind"), CREATING)
def test_the_same_request_twice_at_once_makes_one_object(send: Send, who: str, kind: Any) -> None:
    world = World()
    before = kind.objects.count()
    start = threading.Barrier(4)
    answers: list[Any] = []

    def request() -> None:
        caller = APIClient(raise_request_exception=False)
        caller.credentials(**getattr(world, who)._credentials)
        caller.defaults = dict(getattr(world, who).defaults)
        start.wait()
        try:
            answers.append(send(world, caller, KEY, 1))
        finally:
            close_old_connections()
            connection.close()

    threads = [threading.Thread(target=request) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [answer.status_code for answer in answers] == [201] * 4, [answer.content for answer in answers]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert kind.objects.count() == before + 1


def register(model: FederatedModel, key: str) -> Any:
    return APIClient(headers={"idempotency-key": key}).post(f"{API}models/{model.pk}/register_client/")


@pytest.mark.django_db
def test_registering_again_with_a_key_answers_the_same_credential(model: FederatedModel) -> None:
    first, second, other = (register(model, key) for key in (KEY, KEY, KEY[::-1]))

    assert first.json() == second.json() != other.json()
    assert model.clients.count() == 2
    assert register(make_model(), KEY).json()["uuid"] != first.json()["uuid"]


@pytest.mark.django_db
def test_registering_again_does_not_bring_back_a_client_that_was_taken_out(model: FederatedModel) -> None:
    register(model, KEY)
    change_federated_model(model, {"clients": []})

    again = register(model, KEY)

    assert (again.status_code, again.json()["code"]) == (409, "idempotency_key_expired")
    assert not model.clients.exists()


def test_a_key_that_could_be_guessed_registers_nobody(model: FederatedModel) -> None:
    assert register(model, "k" * 15).status_code == 400
    assert not Client.objects.exists()


@pytest.mark.django_db
def test_nothing_secret_is_stored(model: FederatedModel) -> None:
    plain = APIClient().post(f"{API}models/{model.pk}/register_client/").json()["uuid"]
    keyed = register(model, KEY).json()["uuid"]
    device = APIClient(headers={"client-uuid": keyed})
    device.post(f"{API}model_updates/", {"federated_model": model.pk, "data": weights()})
    aggregate = ModelAggregate.objects.first() or make_aggregate(model)
    said = {"aggregate": aggregate.pk, "validation_results": {}, "client": keyed}
    assert device.post(f"{API}client_aggregate_scores/", said).status_code == 201

    stored = [str(row) for kind in apps.get_models() for row in kind._default_manager.values_list()]

    assert len(stored) > 5
    for credential in (plain, keyed):
        for form in (credential, credential.replace("-", "")):
            assert not [row for row in stored if form in row]
    assert not [row for row in stored if KEY in row]


@pytest.mark.django_db
def test_a_key_does_not_show_what_was_transferred_to_somebody_else() -> None:
    alice, bob = make_user(), make_user()
    owner, staff = as_user(alice), as_user(make_user(staff=True))
    kept = make_model(alice)
    for path, body in (
        (f"{API}models/", {"name": "m", "aggregator": "mean"}),
        (f"{API}models/{kept.pk}/clone/", {}),
    ):
        made = owner.post(path, body, headers={"idempotency-key": "k"}).json()
        assert owner.post(path, body, headers={"idempotency-key": "k"}).json()["id"] == made["id"]
        moved = staff.patch(f"{API}models/{made['id']}/", {"developer": bob.pk})
        assert moved.status_code == 200, moved.content

        again = owner.post(path, body, headers={"idempotency-key": "k"})

        assert (again.status_code, again.json()["code"]) == (409, "idempotency_key_expired")
