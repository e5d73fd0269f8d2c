"""Small helpers that put rows into the record as the server does, for the tests of the server.

alice = make_user("alice")
model = make_model(alice, requirement="require_x_updates", requirement_args=[2])
ann = make_client(model)                  # ann.client, ann.credential
send_update(model, ann.client, {"w": [[1.0, 2.0]]})
aggregate = aggregate_now(model)          # what the worker would do
"""

import itertools
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import numpy as np
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission, User

from fma_core.arrays.codecs.receive import Received
from fma_core.arrays.spec import Spec
from fma_django.accounts.roles import RUN_EXPERIMENTS
from fma_django.clients.registration import Registration, create_client, register_client
from fma_django.evaluations.scores import receive_score
from fma_django.experiments.changes import change_federated_model, create_federated_model
from fma_django.models import Client, ClientAggregateScore, FederatedModel, ModelAggregate, ModelUpdate
from fma_django.models.round import RoundState
from fma_django.record.weights import JsonBody, SafetensorsBody, WeightsBody
from fma_django.rounds.aggregation import aggregate_round
from fma_django.updates.intake import Sender, UpdateFacts, accept, announce

SPEC = Spec.from_json({"w": {"shape": [1], "dtype": "float32"}})
PASSWORD = "correct horse battery staple"
WEIGHTS: Mapping[str, Any] = {"b": [0.0, 1.0], "w": [[1.0, 2.0], [3.0, 4.0]]}

_numbers = itertools.count(1)


def arrays(value: float = 1.0) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays that fit a model whose initial model is WEIGHTS, every element `value`."""
    return {"b": np.full(2, float(value)), "w": np.full((2, 2), float(value))}


def weights(value: float = 1.0) -> dict[str, Any]:
    """The same as JSON."""
    return {name: array.tolist() for name, array in arrays(value).items()}


def make_user(username: str | None = None, *, staff: bool = False) -> User:
    """A data scientist, or an owner (staff) who may do everything; the password is PASSWORD."""
    user = make_user_with(*(() if staff else (RUN_EXPERIMENTS,)), username=username)
    if staff:
        User.objects.filter(pk=user.pk).update(is_superuser=True)
        user.is_superuser = True
    return user


def make_user_with(*permissions: str, username: str | None = None, role: str | None = None) -> User:
    """A user with these permissions for the whole installation, or with a role."""
    name = username or f"user{next(_numbers)}"
    user: User = get_user_model().objects.create_user(name, password=PASSWORD)
    if role is not None:
        user.groups.set([Group.objects.get(name=role)])
    for permission in permissions:
        label, codename = permission.split(".")
        user.user_permissions.add(Permission.objects.get(content_type__app_label=label, codename=codename))
    return user


def make_model(developer: User | None = None, *, initial_model: Any = None, **options: Any) -> FederatedModel:
    """An experiment that aggregates each update at once, unless `options` say otherwise."""
    said = {"name": "experiment", "aggregator": "mean", "allow_aggregation": True, **options}
    return create_federated_model(
        developer=developer or make_user(),
        initial_model=None if initial_model is None else JsonBody(initial_model),
        **said,
    )


def change_now(model: FederatedModel, changes: Mapping[str, Any]) -> None:
    """Change an experiment while it is paused, so that the open round follows, whoever has relied on it."""
    change_federated_model(model, {"allow_aggregation": False})
    change_federated_model(model, changes)
    change_federated_model(model, {"allow_aggregation": True})


def make_client(*models: FederatedModel) -> Registration:
    """A client that is registered with these models, and its credential."""
    if not models:
        return Registration(*create_client())
    first = register_client(models[0])
    for model in models[1:]:
        register_client(model, credential=str(first.credential))
    return first


def send_update(
    model: FederatedModel,
    client: Client,
    data: Any = None,
    *,
    base_aggregate: ModelAggregate | int | None = None,
    num_examples: int = 1,
) -> ModelUpdate:
    """An update of this client in the collecting round; by default weights(1.0), and without a base."""
    base = base_aggregate.pk if isinstance(base_aggregate, ModelAggregate) else base_aggregate
    facts = UpdateFacts(base_aggregate_id=base, num_examples=num_examples)
    return send_body(model, client, JsonBody(weights() if data is None else data), facts)


def send_body(
    model: FederatedModel,
    client: Client,
    body: WeightsBody,
    facts: UpdateFacts = UpdateFacts(),  # noqa: B008  # frozen
    *,
    idempotency_key: str | None = None,
) -> ModelUpdate:
    """As a client's request does it: announced before its body is read, then accepted."""
    size_bytes = body.size_bytes if isinstance(body, SafetensorsBody) else 0
    # Django keeps the id that a row was made with, which may have been a text.
    sender = Sender(model.pk, UUID(str(client.pk)))
    return accept(announce(sender, facts, size_bytes, idempotency_key=idempotency_key), body)


def aggregate_now(model: FederatedModel) -> ModelAggregate:
    """Do what the worker does when a round is due; an AssertionError when it is not."""
    collecting = model.rounds.get(state=RoundState.COLLECTING)
    aggregate = aggregate_round(collecting.pk)
    collecting.refresh_from_db()
    assert aggregate is not None, (
        f"round {collecting.number} is {collecting.state}: {collecting.failure_detail}"
    )
    return aggregate


def make_aggregate(
    model: FederatedModel, *clients: Client, value: float = 1.0, base: ModelAggregate | None = None
) -> ModelAggregate:
    """Send an update of each client (of a new one, without any) and aggregate them."""
    for client in clients or (make_client(model).client,):
        send_update(model, client, weights(value), base_aggregate=base)
    return aggregate_now(model)


def make_score(aggregate: ModelAggregate, client: Client) -> ClientAggregateScore:
    """Validation results of this client for this aggregate."""
    return receive_score(aggregate, client, {"f1": 0.5})


def received(sha256: str, size_bytes: int) -> Received:
    """A fold's report on the file that it wrote."""
    return Received(SPEC, sha256, size_bytes)
