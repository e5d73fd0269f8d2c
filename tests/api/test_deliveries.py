"""Updates with a key that arrive twice, late and in another order than they were sent: each counts at most once."""

import random
from collections import defaultdict

import pytest
from rest_framework.test import APIClient

from fma_core.arrays.codecs.safetensors import read_file
from fma_django.models import FederatedModel, ModelUpdate
from fma_django.models.model_update import UpdateStatus
from fma_django.models.round import RoundState
from fma_django.storage import get_store
from tests.api.callers import API, as_client
from tests.records import aggregate_now, make_client, make_model, make_user

pytestmark = pytest.mark.django_db
NUM_CLIENTS, NUM_EACH, LEAST = 5, 4, 3


def deliver(device: APIClient, model: FederatedModel, value: float) -> int:
    """The id that the server answers with."""
    answer = device.post(
        f"{API}model_updates/",
        {"federated_model": model.pk, "data": {"w": [value]}},
        headers={"idempotency-key": f"update-{value}"},
    )
    assert answer.status_code == 201, answer.content
    made: int = answer.json()["id"]
    return made


def merged_into(aggregate_sha256: str, num_updates: int) -> set[float]:
    """Every update is another power of two, so that their sum says which they were, and that each is there once."""
    path = get_store().local_path(aggregate_sha256)
    assert path is not None
    total = round(float(read_file(path)["w"][0]) * num_updates)
    return {2.0**bit for bit in range(total.bit_length()) if total >> bit & 1}


@pytest.mark.parametrize("seed", range(8))
def test_each_update_is_one_row_and_merged_at_most_once(seed: int) -> None:
    order = random.Random(seed)
    model = make_model(make_user(), requirement="require_x_updates", requirement_args=[LEAST])
    devices = [as_client(make_client(model)) for _ in range(NUM_CLIENTS)]
    sent = [
        (device, 2.0 ** (NUM_EACH * index + number))
        for index, device in enumerate(devices)
        for number in range(NUM_EACH)
    ]
    deliveries = [message for message in sent for _ in range(order.randint(1, 3))]
    order.shuffle(deliveries)
    answered = defaultdict(set)

    for device, value in deliveries:
        answered[value].add(deliver(device, model, value))
        is_ready = model.rounds.filter(state=RoundState.COLLECTING, ready_on__isnull=False).exists()
        if is_ready and order.random() < 0.5:
            aggregate_now(model)

    assert [len(ids) for ids in answered.values()] == [1] * len(sent)
    assert ModelUpdate.objects.count() == len(sent)
    value_of = {ids.copy().pop(): value for value, ids in answered.items()}
    counted: set[object] = set()
    for found in model.rounds.filter(state=RoundState.PUBLISHED).select_related("aggregate"):
        complete = found.model_updates.filter(status=UpdateStatus.COMPLETE)
        expected = {value_of[update.pk] for update in complete}
        assert len(expected) == found.num_updates >= LEAST
        assert len(set(complete.values_list("client", flat=True))) == found.num_updates
        assert found.aggregate is not None
        assert merged_into(found.aggregate.sha256, found.num_updates) == expected
        assert not counted & expected
        counted |= expected
    assert counted
