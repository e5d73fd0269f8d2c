"""Receiving updates: what counts, what is replaced, what is kept aside."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from django.db import OperationalError

from fma_core.arrays.codecs.safetensors import decode, encode
from fma_core.errors import DtypeMismatch, FMAError, NonFiniteValue, ShapeMismatch, TooLarge, TruncatedBody
from fma_django.clients.registration import revoke_client
from fma_django.errors import (
    DigestMismatch,
    IdempotencyKeyReused,
    InvalidValue,
    ModelHasHistory,
    NotRegistered,
    SchemaViolation,
    UnknownBaseAggregate,
)
from fma_django.experiments.changes import change_federated_model
from fma_django.models import FederatedModel, ModelUpdate
from fma_django.models.model_update import UpdateStatus
from fma_django.record.weights import JsonBody, SafetensorsBody
from fma_django.rounds import claiming, publishing
from fma_django.storage import get_store
from fma_django.updates.intake import Sender, UpdateFacts, accept, announce
from tests.records import (
    WEIGHTS,
    arrays,
    make_aggregate,
    make_client,
    make_model,
    received,
    send_body,
    send_update,
    weights,
)

pytestmark = pytest.mark.django_db


def body_of(data: bytes, *, size_bytes: int | None = None, wire_sha256: str | None = None) -> SafetensorsBody:
    at = 0

    def read(size: int) -> bytes:
        nonlocal at
        piece = data[at : at + size]
        at += len(piece)
        return piece

    return SafetensorsBody(read, len(data) if size_bytes is None else size_bytes, wire_sha256)


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_row_digest_and_bytes_agree(model: FederatedModel) -> None:
    update = send_body(model, make_client(model).client, body_of(encode(arrays(2.5))))
    stored = b"".join(get_store().open_range(update.sha256))
    assert hashlib.sha256(stored).hexdigest() == update.sha256
    assert len(stored) == update.size_bytes
    np.testing.assert_equal(decode(stored), arrays(2.5))


def test_json_and_safetensors_of_the_same_weights_are_the_same_blob(model: FederatedModel) -> None:
    ann, bob = (make_client(model).client for _ in range(2))
    as_json = send_update(model, ann, weights(2.5))
    as_bytes = send_body(model, bob, body_of(encode(arrays(2.5))))
    assert as_json.sha256 == as_bytes.sha256


def test_the_newest_update_of_a_round_replaces_the_earlier_one(model: FederatedModel) -> None:
    ann = make_client(model).client
    earlier = send_update(model, ann, weights(1.0))
    newest = send_update(model, ann, weights(2.0))
    earlier.refresh_from_db()
    assert (earlier.status, newest.status) == (UpdateStatus.INVALID, UpdateStatus.PENDING)
    assert "later one" in earlier.status_reason
    assert model.rounds.get().num_updates == 1


def test_the_same_update_again_is_the_same_row(model: FederatedModel) -> None:
    ann = make_client(model).client
    assert send_update(model, ann) == send_update(model, ann)
    assert model.rounds.get().num_updates == 1


def test_one_client_does_not_meet_a_requirement_of_two(model: FederatedModel) -> None:
    ann = make_client(model).client
    for value in (1.0, 2.0, 3.0):
        send_update(model, ann, weights(value))
    assert claiming.claim(model.rounds.get().pk) is None


def test_the_first_weights_say_what_the_arrays_of_the_model_are(model: FederatedModel) -> None:
    send_update(model, make_client(model).client)
    model.refresh_from_db()
    assert model.weights_layout == "named"
    with pytest.raises(ShapeMismatch, match=r"array 'b' has shape \(3,\); the model's spec says \(2,\)"):
        send_update(model, make_client(model).client, {**weights(), "b": [1.0, 2.0, 3.0]})


@pytest.mark.parametrize(
    ("base_of", "counts"), [("newest", True), ("second", False), ("none", False)], ids=str
)
def test_furthest_base_agg_one_means_the_newest(base_of: str, counts: bool) -> None:
    model = make_model()
    second, newest = (make_aggregate(model, value=value) for value in (1.0, 2.0))
    change_federated_model(model, {"furthest_base_agg": 1})
    base = {"newest": newest, "second": second, "none": None}[base_of]
    update = send_update(model, make_client(model).client, base_aggregate=base)
    assert update.status == (UpdateStatus.PENDING if counts else UpdateStatus.INVALID)
    assert ("furthest_base_agg" in update.status_reason) is not counts
    assert model.rounds.get(state="collecting").num_updates == int(counts)


def test_before_the_first_aggregate_every_base_counts() -> None:
    model = make_model(furthest_base_agg=1)
    assert send_update(model, make_client(model).client).status == UpdateStatus.PENDING


def test_an_update_that_becomes_stale_while_it_waits_does_not_count() -> None:
    model = make_model(furthest_base_agg=1, requirement="require_x_updates", requirement_args=[1])
    ann, bob = (make_client(model).client for _ in range(2))
    base = make_aggregate(model, ann)
    send_update(model, ann, weights(5.0), base_aggregate=base)
    lease = claiming.claim(model.rounds.get(state="collecting").pk)
    assert lease is not None
    waiting = send_update(model, bob, base_aggregate=base)
    publishing.publish(lease, received("0" * 64, 1), metrics={}, uses={})
    waiting.refresh_from_db()
    assert waiting.status == UpdateStatus.INVALID
    assert model.rounds.get(state="collecting").num_updates == 0


def test_a_revoked_client_sends_nothing_and_what_it_sent_does_not_count(model: FederatedModel) -> None:
    ann = make_client(model).client
    update = send_update(model, ann)
    revoke_client(ann)
    ann.refresh_from_db()
    update.refresh_from_db()
    assert update.status == UpdateStatus.INVALID
    with pytest.raises(NotRegistered):
        send_update(model, ann, weights(2.0))


class TestRefusedWithoutATrace:
    """No row, no file, whatever is wrong."""

    @pytest.fixture
    def model(self, db: None) -> FederatedModel:
        return make_model(initial_model=WEIGHTS)

    @pytest.mark.parametrize(
        ("data", "error"),
        [
            (encode({**arrays(), "b": np.zeros(3)}), ShapeMismatch),
            (encode({**arrays(), "b": np.zeros(2, np.float32)}), DtypeMismatch),
            (encode({**arrays(), "b": np.zeros(2)})[:-1], TruncatedBody),
            (b"\xff" * 64, FMAError),
        ],
        ids=["shape", "dtype", "truncated", "garbage"],
    )
    def test_a_body_that_does_not_fit(
        self, model: FederatedModel, storage: Path, data: bytes, error: type[FMAError]
    ) -> None:
        before = files_in(storage)
        size_bytes = len(data) + (1 if error is TruncatedBody else 0)
        with pytest.raises(error):
            send_body(model, make_client(model).client, body_of(data, size_bytes=size_bytes))
        assert files_in(storage) == before
        assert not ModelUpdate.objects.exists()
        assert model.rounds.get().num_updates == 0

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_values_that_are_not_finite(self, model: FederatedModel, storage: Path, value: float) -> None:
        before = files_in(storage)
        data = encode({**arrays(), "b": np.array([0.0, 1.5])})
        data = data.replace(np.float64(1.5).tobytes(), np.float64(value).tobytes())
        with pytest.raises(NonFiniteValue, match="'b'"):
            send_body(model, make_client(model).client, body_of(data))
        assert files_in(storage) == before

    def test_a_body_that_is_too_large(self, model: FederatedModel, storage: Path, settings: object) -> None:
        settings.FMA_MAX_UPDATE_BYTES = 100  # type: ignore[attr-defined]
        before = files_in(storage)
        with pytest.raises(TooLarge):
            send_body(model, make_client(model).client, body_of(encode(arrays())))
        assert files_in(storage) == before

    def test_a_body_that_is_not_what_its_digest_says(self, model: FederatedModel, storage: Path) -> None:
        before = files_in(storage)
        with pytest.raises(DigestMismatch):
            send_body(model, make_client(model).client, body_of(encode(arrays()), wire_sha256="0" * 64))
        assert files_in(storage) == before

    def test_a_stranger_is_refused_before_its_body_is_read(self, model: FederatedModel) -> None:
        def must_not_read(_size: int) -> bytes:
            raise AssertionError("the body was read")

        with pytest.raises(NotRegistered):
            send_body(model, make_client().client, SafetensorsBody(must_not_read, 100))

    def test_a_base_of_another_model(self, model: FederatedModel) -> None:
        elsewhere = make_aggregate(make_model())
        with pytest.raises(UnknownBaseAggregate):
            send_update(model, make_client(model).client, base_aggregate=elsewhere)

    @pytest.mark.parametrize(
        "facts",
        [
            UpdateFacts(num_examples=0),
            UpdateFacts(num_examples=2**53 + 1),
            UpdateFacts(metrics={"loss": float("nan")}),
            UpdateFacts(metrics={"notes": "x" * 70_000}),
        ],
    )
    def test_facts_that_cannot_be(self, model: FederatedModel, facts: UpdateFacts) -> None:
        with pytest.raises(InvalidValue):
            send_body(model, make_client(model).client, JsonBody(weights()), facts)


def test_update_schema_holds_for_json_and_for_bytes() -> None:
    model = make_model(update_schema={"type": "object", "required": ["v"]})
    client = make_client(model).client
    for body in (JsonBody(weights()), body_of(encode(arrays()))):
        with pytest.raises(SchemaViolation, match="'v' is a required property"):
            send_body(model, client, body)
    assert send_body(model, client, JsonBody({"v": [1.0]})).status == UpdateStatus.PENDING


def test_a_schema_never_makes_the_server_fetch_something() -> None:
    model = make_model(update_schema={"$ref": "http://127.0.0.1:9/schema.json"})
    with pytest.raises(SchemaViolation, match="cannot be applied"):
        send_update(model, make_client(model).client)


class TestIdempotencyKey:
    def test_a_repeated_request_counts_once_even_in_the_next_round(self, model: FederatedModel) -> None:
        ann, bob = (make_client(model).client for _ in range(2))
        sent = send_body(model, ann, JsonBody(weights()), idempotency_key="a")
        make_aggregate(model, bob)
        again = send_body(model, ann, JsonBody(weights()), idempotency_key="a")
        assert again == sent
        assert model.rounds.get(state="collecting").num_updates == 0

    def test_another_request_with_the_same_key_is_refused(self, model: FederatedModel) -> None:
        ann = make_client(model).client
        send_body(model, ann, JsonBody(weights()), idempotency_key="a")
        with pytest.raises(IdempotencyKeyReused):
            send_body(model, ann, JsonBody(weights(2.0)), idempotency_key="a")

    def test_keys_of_two_clients_do_not_meet(self, model: FederatedModel) -> None:
        ann, bob = (make_client(model).client for _ in range(2))
        one = send_body(model, ann, JsonBody(weights()), idempotency_key="a")
        other = send_body(model, bob, JsonBody(weights()), idempotency_key="a")
        assert one != other


class TestSpec:
    """A first update of the wrong shape does not bind the model for ever."""

    RIGHT = {"w": {"shape": [3], "dtype": "float64"}}

    def test_the_owner_can_put_it_right_and_what_waits_no_longer_counts(self, model: FederatedModel) -> None:
        ann = make_client(model).client
        wrong = send_update(model, ann, [1.0, 2.0])
        change_federated_model(model, {"spec": self.RIGHT})
        right = send_update(model, ann, {"w": [1.0, 2.0, 3.0]})
        wrong.refresh_from_db()
        assert (wrong.status, right.status) == (UpdateStatus.INVALID, UpdateStatus.PENDING)
        assert "spec" in wrong.status_reason
        assert model.rounds.get().num_updates == 1

    def test_without_one_the_next_update_decides_again(self, model: FederatedModel) -> None:
        ann = make_client(model).client
        send_update(model, ann, [1.0, 2.0])
        change_federated_model(model, {"spec": None})
        send_update(model, ann, {"w": [1.0]})
        model.refresh_from_db()
        assert model.weights_layout == "named"

    def test_it_stays_while_a_round_is_aggregated_and_after(self) -> None:
        model = make_model()
        send_update(model, make_client(model).client)
        lease = claiming.claim(model.rounds.get().pk)
        assert lease is not None
        with pytest.raises(ModelHasHistory):
            change_federated_model(model, {"spec": self.RIGHT})
        publishing.publish(lease, received("0" * 64, 1), metrics={}, uses={})
        with pytest.raises(ModelHasHistory):
            change_federated_model(model, {"spec": self.RIGHT})


def test_what_changed_while_the_body_travelled_counts() -> None:
    model = make_model()
    first = make_aggregate(model)
    make_aggregate(model)
    ann = make_client(model).client
    data = body_of(encode(arrays()))

    def read(size: int) -> bytes:
        change_federated_model(FederatedModel.objects.get(pk=model.pk), {"furthest_base_agg": 1})
        return bytes(data.read(size))

    model.refresh_from_db()
    update = send_body(
        model, ann, SafetensorsBody(read, data.size_bytes), UpdateFacts(base_aggregate_id=first.pk)
    )
    assert update.status == UpdateStatus.INVALID


def test_schema_that_changed_on_the_way_counts() -> None:
    model = make_model(initial_model=WEIGHTS)
    client = make_client(model).client
    body = body_of(encode(arrays()))
    expected = announce(Sender(model.pk, client.pk), UpdateFacts(), body.size_bytes)
    change_federated_model(model, {"update_schema": {"type": "string"}})

    with pytest.raises(InvalidValue, match="update_schema changed"):
        accept(expected, body)

    assert not ModelUpdate.objects.exists()


def test_an_update_that_rounds_overtake_for_ever_ends_as_a_busy_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_model()
    client = make_client(model).client
    monkeypatch.setattr("fma_django.updates.sql.count_one", lambda cursor, model: False)
    with pytest.raises(OperationalError, match="rounds were claimed while an update waited"):
        send_update(model, client)
    assert not ModelUpdate.objects.exists()
