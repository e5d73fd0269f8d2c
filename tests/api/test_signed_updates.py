"""Signatures of clients under their updates, on every way in."""

import base64
import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import Settings
from rest_framework.test import APIClient

from fma_api.cli.verify import _as_text
from fma_core.arrays.codecs.safetensors import encode
from fma_core.arrays.codecs.zstd import encoded as zstd_of
from fma_core.errors import FMAError
from fma_core.identity.keys import fingerprint, sign
from fma_core.identity.update import UpdateStatement
from fma_django.clients.changes import replace_key
from fma_django.clients.credentials import give_next_credential
from fma_django.clients.issuers import add_issuer, revoke_issuer
from fma_django.clients.keys import add_key, sent_key
from fma_django.clients.registration import Registration, find_client
from fma_django.models import FederatedModel, IdempotencyKey, ModelUpdate, Organisation, UpdateSignature
from fma_django.models.model_update import UpdateStatus
from fma_django.record.signed_updates import is_still_right
from fma_django.record.weights import JsonBody
from fma_django.rounds.verification import verify_round
from fma_django.rounds.waiting_updates import FORMER_KEY
from fma_django.storage import get_store
from fma_django.updates.intake import Sender, SentSignature, UpdateFacts, accept, announce
from tests.api.callers import API, SAFETENSORS, as_client, as_user
from tests.keys import SERVER, Key
from tests.records import aggregate_now, arrays, make_client, make_model, send_update, weights

pytestmark = pytest.mark.django_db
UPDATES = f"{API}model_updates/"
BODY = encode(arrays())
METRICS = {"loss": 0.5, "steps": 3}


@dataclass
class Device:
    """A client with a key, and what it sends."""

    model: FederatedModel
    registration: Registration
    key: Key
    nonce: bytes = field(default_factory=lambda: os.urandom(16))

    @property
    def caller(self) -> APIClient:
        return as_client(self.registration)

    def header(self, body: bytes, **changes: Any) -> str:
        said: dict[str, Any] = {
            "client": uuid.UUID(str(self.registration.client.pk)),
            "model": self.model.pk,
            "base_aggregate": 0,
            "num_examples": 7,
            "metrics": METRICS,
            "sha256": hashlib.sha256(body).digest(),
            "nonce": self.nonce,
        }
        statement = UpdateStatement(**(said | changes))
        return f"{statement.nonce.hex()} {sign(self.key.private, statement.encode()).hex()}"

    def send(
        self,
        body: bytes = BODY,
        *,
        signature: str | None = None,
        headers: Mapping[str, str] | None = None,
        **facts: Any,
    ) -> Any:
        """Send safetensors with the facts of `header`."""
        query = {"federated_model": self.model.pk, "base_aggregate": 0, "num_examples": 7, **facts}
        named = {
            "fma-metrics": json.dumps(METRICS),
            "content-digest": digest_of(body),
            "fma-signature": self.header(body) if signature is None else signature,
            **(headers or {}),
        }
        return self.caller.generic(
            "POST",
            f"{UPDATES}?{'&'.join(f'{name}={value}' for name, value in query.items())}",
            body,
            content_type=SAFETENSORS,
            headers={name: value for name, value in named.items() if value},
        )


def digest_of(body: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json().get("code", "")


@pytest.fixture(params=["known_keys", "required"])
def policy(request: pytest.FixtureRequest, settings: Settings) -> str:
    settings.FMA_SIGNED_UPDATES = request.param
    return str(request.param)


@pytest.fixture
def model() -> FederatedModel:
    return make_model(initial_model=weights(0.0), requirement="require_x_updates", requirement_args=[9])


@pytest.fixture
def device(model: FederatedModel) -> Device:
    return make_device(model)


def make_device(model: FederatedModel) -> Device:
    registration, key = make_client(model), Key()
    sent = sent_key(key.of_client(registration.client), servers=(SERVER,))
    assert sent is not None
    add_key(registration.client, sent)
    return Device(model, registration, key)


def test_a_signed_update_is_kept_with_its_signature(device: Device, policy: str) -> None:
    answer = device.send()

    assert answer.status_code == 201, answer.content
    signed = UpdateSignature.objects.select_related("update").get(update=answer.json()["id"])
    assert signed.public_key == device.key.public.hex()
    assert signed.sha256 == signed.update.sha256
    assert is_still_right(signed)
    owner = as_user(device.model.developer)
    for url in (UPDATES, f"{UPDATES}{answer.json()['id']}/"):
        shown = owner.get(url).json()
        shown = shown[0] if isinstance(shown, list) else shown
        assert shown["signed_by"] == fingerprint(device.key.public)
    assert "signed_by" not in device.caller.get(UPDATES).json()[0]


def test_a_signed_update_may_be_json(device: Device, policy: str) -> None:
    members = {"federated_model": device.model.pk, "base_aggregate": 0, "num_examples": 7, "metrics": METRICS}
    body = json.dumps({**members, "data": weights()}).encode()

    answer = device.caller.generic(
        "POST",
        UPDATES,
        body,
        content_type="application/json",
        headers={"content-digest": digest_of(body), "fma-signature": device.header(body)},
    )

    assert answer.status_code == 201, answer.content
    assert UpdateSignature.objects.get().sha256 == hashlib.sha256(body).hexdigest()
    assert is_still_right(UpdateSignature.objects.get())


def test_a_signed_update_may_be_compressed(device: Device, policy: str) -> None:
    device.send()
    device.nonce = os.urandom(16)
    body = b"".join(zstd_of([encode(arrays(2.0))]))

    answer = device.send(body, headers={"content-encoding": "zstd"})

    assert answer.status_code == 201, answer.content
    newest = UpdateSignature.objects.order_by("-update_id").first()
    assert newest is not None
    assert newest.sha256 != newest.update.sha256
    assert is_still_right(newest)


def begin(device: Device, *, signature: str | None = None, digest: str = digest_of(BODY)) -> Any:
    return device.caller.generic(
        "POST",
        f"{API}uploads/?federated_model={device.model.pk}&base_aggregate=0&num_examples=7",
        b"",
        headers={
            "tus-resumable": "1.0.0",
            "upload-length": str(len(BODY)),
            "fma-metrics": json.dumps(METRICS),
            **({"repr-digest": digest} if digest else {}),
            **(
                {"fma-signature": device.header(BODY) if signature is None else signature}
                if signature != ""
                else {}
            ),
        },
    )


def test_a_signed_update_may_come_in_parts(device: Device, policy: str) -> None:
    begun = begin(device)
    assert begun.status_code == 201, begun.content
    url = f"{API}uploads/{begun.json()['id']}/"
    for start, end in ((0, 100), (100, len(BODY))):
        headers = {"tus-resumable": "1.0.0", "upload-offset": str(start)}
        part = device.caller.generic(
            "PATCH", url, BODY[start:end], content_type="application/offset+octet-stream", headers=headers
        )
        assert part.status_code == 204, part.content

    for _ in range(2):
        answer = device.caller.post(f"{UPDATES}?upload={begun.json()['id']}")
        assert answer.status_code == 201, answer.content

    assert is_still_right(UpdateSignature.objects.get())


def test_an_upload_is_refused_before_its_bytes(device: Device, policy: str) -> None:
    assert code_of(begin(device, signature="")) == (403, "signature_required")
    assert code_of(begin(device, signature=device.header(b"other"))) == (403, "invalid_signature")
    assert code_of(begin(device, digest="")) == (400, "invalid_header")
    assert code_of(begin(device, signature="x")) == (400, "invalid_header")


@pytest.mark.parametrize(
    "change",
    [
        {"client": uuid.UUID(int=1)},
        {"model": 99},
        {"base_aggregate": None},
        {"base_aggregate": 1},
        {"num_examples": 8},
        {"metrics": {}},
        {"metrics": METRICS | {"loss": 0.25}},
        {"sha256": hashlib.sha256(b"other").digest()},
    ],
    ids=lambda change: "-".join(map(str, change)),
)
def test_a_signature_over_something_else_is_refused(device: Device, policy: str, change: Any) -> None:
    answer = device.send(signature=device.header(BODY, **change))

    assert code_of(answer) == (403, "invalid_signature")
    assert not ModelUpdate.objects.exists()


def test_an_update_that_was_changed_on_its_way_is_refused(device: Device, policy: str) -> None:
    """With the signature of what the client sent."""
    assert code_of(device.send(num_examples=8)) == (403, "invalid_signature")
    assert code_of(device.send(headers={"fma-metrics": ""})) == (403, "invalid_signature")
    other = encode(arrays(9.0))
    assert code_of(device.send(other, signature=device.header(BODY))) == (403, "invalid_signature")
    lied = device.send(other, signature=device.header(BODY), headers={"content-digest": digest_of(BODY)})
    assert code_of(lied) == (400, "digest_mismatch")
    assert not ModelUpdate.objects.exists()


def test_metrics_may_be_written_otherwise(device: Device, policy: str) -> None:
    answer = device.send(headers={"fma-metrics": '{"steps":3.0, "loss":5e-1}'})

    assert answer.status_code == 201, answer.content


@pytest.mark.parametrize("text", ["x", "00" * 16, f"{'0' * 32}  {'0' * 128}", f"{'A' * 32} {'0' * 128}"])
def test_what_is_no_signature_is_told(device: Device, policy: str, text: str) -> None:
    assert code_of(device.send(signature=text)) == (400, "invalid_header")


def test_a_signature_needs_the_digest_that_it_covers(device: Device, policy: str) -> None:
    assert code_of(device.send(headers={"content-digest": ""})) == (400, "invalid_header")


def test_the_key_of_another_client_signs_nothing(device: Device, policy: str) -> None:
    device.key = Key()

    assert code_of(device.send()) == (403, "invalid_signature")


def test_a_client_with_a_key_signs(device: Device, policy: str) -> None:
    assert code_of(device.send(headers={"fma-signature": ""})) == (403, "signature_required")


def test_a_misspelt_policy_lets_nothing_in_unsigned(device: Device, settings: Settings) -> None:
    settings.FMA_SIGNED_UPDATES = "Required"

    assert code_of(device.send(signature="", headers={"fma-signature": ""})) == (403, "signature_required")
    assert device.send().status_code == 201


def test_a_client_without_a_key_sends_where_it_may(device: Device, policy: str) -> None:
    device.registration = make_client(device.model)

    unsigned = device.send(headers={"fma-signature": ""})

    if policy == "required":
        assert code_of(unsigned) == (403, "signature_required")
    else:
        assert unsigned.status_code == 201
    assert code_of(device.send()) == (403, "invalid_signature")


def test_a_developer_does_not_send_in_the_name_of_a_client_with_a_key(device: Device, policy: str) -> None:
    body = {
        "federated_model": device.model.pk,
        "data": weights(),
        "client": str(device.registration.client.pk),
        "base_aggregate": 0,
    }

    answer = as_user(device.model.developer).post(UPDATES, body, format="json")

    assert code_of(answer) == (403, "signature_required")


def test_nobody_looks_at_signatures_unless_they_shall(device: Device) -> None:
    for text in ("x", device.header(b"other"), ""):
        assert (
            device.send(signature=text or None, headers={} if text else {"fma-signature": ""}).status_code
            == 201
        )
    assert not UpdateSignature.objects.exists()
    assert begin(device, signature="x").status_code == 201


def test_a_replayed_update_is_refused(device: Device, policy: str) -> None:
    """By whoever has the credential and a copy of the request, but not the key."""
    copied = device.header(BODY)
    first = device.send(signature=copied, headers={"idempotency-key": "once"})
    again = device.send(signature=copied, headers={"idempotency-key": "once"})
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["id"] == again.json()["id"]
    # In the round, the same update is the same row; once another one has come, it is a replay.
    assert device.send(signature=copied).json()["id"] == first.json()["id"]
    newer, other = device.nonce, encode(arrays(2.0))
    device.nonce = os.urandom(16)
    assert newer != device.nonce
    assert device.send(other).status_code == 201
    assert code_of(device.send(signature=copied)) == (409, "signature_replayed")
    # Also when its Idempotency-Key has been forgotten.
    IdempotencyKey.objects.all().delete()
    replayed = device.send(signature=copied, headers={"idempotency-key": "once"})
    assert code_of(replayed) == (409, "signature_replayed")
    assert ModelUpdate.objects.count() == 2
    assert device.model.rounds.get().num_updates == 1


def test_a_replay_in_a_later_round_is_refused(settings: Settings) -> None:
    settings.FMA_SIGNED_UPDATES = "required"
    device = make_device(make_model(initial_model=weights(0.0)))  # each update is aggregated at once
    copied = device.header(BODY)
    assert device.send(signature=copied).status_code == 201
    aggregate_now(device.model)

    assert code_of(device.send(signature=copied)) == (409, "signature_replayed")
    assert ModelUpdate.objects.count() == 1


@pytest.mark.parametrize("is_replaced", [True, False])
def test_a_key_that_changes_while_an_update_travels_is_noticed(
    device: Device, policy: str, is_replaced: bool
) -> None:
    client, signature = device.registration.client, device.header(b"body")
    facts = UpdateFacts(0, 7, METRICS)
    if not is_replaced and policy == "required":
        pytest.skip("without a key, nothing is announced")
    sent: SentSignature | None = SentSignature(signature, hashlib.sha256(b"body").hexdigest(), 0)
    if not is_replaced:
        client, sent = make_client(device.model).client, None
    expected = announce(Sender(device.model.pk, uuid.UUID(str(client.pk))), facts, 4, signature=sent)

    key = sent_key(Key().request_file())
    assert key is not None
    replace_key(client, key, by=None)

    with pytest.raises(FMAError) as refused:
        accept(expected, JsonBody(weights()))
    assert refused.value.code == ("invalid_signature" if is_replaced else "signature_required")
    assert not ModelUpdate.objects.exists()


def test_an_update_that_is_sent_again_is_signed_by_the_key_of_now(
    device: Device, policy: str, settings: Settings
) -> None:
    settings.FMA_SIGNED_UPDATES = "off"
    unsigned = device.send(signature="").json()["id"]
    settings.FMA_SIGNED_UPDATES = policy
    signatures = UpdateSignature.objects.filter(update=unsigned)

    assert device.send().json()["id"] == unsigned
    first = signatures.get()
    assert is_still_right(first)
    device.nonce = os.urandom(16)
    assert device.send().json()["id"] == unsigned
    assert signatures.get().nonce == first.nonce

    device.key = Key()
    sent = sent_key(device.key.request_file())
    assert sent is not None
    replace_key(device.registration.client, sent, by=None)
    again = device.send().json()["id"]
    assert again != unsigned, "what the former key has signed counts no longer"
    assert UpdateSignature.objects.get(update=again).public_key == device.key.public.hex()
    assert is_still_right(UpdateSignature.objects.get(update=again))
    assert device.model.rounds.get().num_updates == 1


def test_an_update_of_a_key_that_was_replaced_no_longer_counts(device: Device, settings: Settings) -> None:
    settings.FMA_SIGNED_UPDATES = "known_keys"
    other, unsigned = make_device(device.model), make_client(device.model)
    sent = {
        name: answer.json()["id"] for name, answer in (("former", device.send()), ("other", other.send()))
    }
    sent["unsigned"] = send_update(device.model, unsigned.client).pk
    for client in (device.registration.client, unsigned.client):
        key = sent_key(Key().request_file())
        assert key is not None
        replace_key(client, key, by=None)

    statuses = dict(ModelUpdate.objects.values_list("pk", "status"))
    assert statuses[sent["former"]] == UpdateStatus.INVALID
    assert statuses[sent["other"]] == statuses[sent["unsigned"]] == UpdateStatus.PENDING
    assert ModelUpdate.objects.get(pk=sent["former"]).status_reason == FORMER_KEY
    assert device.model.rounds.get().num_updates == 2


def test_an_update_stays_when_its_key_does(device: Device, settings: Settings) -> None:
    """The credential is rotated, the key is entered again, the issuer of its certificate is revoked."""
    settings.FMA_SIGNED_UPDATES = "required"
    client, issuing = device.registration.client, Key()
    issuer = add_issuer(Organisation.objects.create(name="hospital"), issuing.public.hex(), by=None)
    certificate = issuing.certify(device.key).to_json()
    sent = sent_key(device.key.of_client(client, certificate=certificate), servers=(SERVER,))
    again = sent_key(device.key.request_file(certificate=certificate))
    assert sent is not None
    assert again is not None
    add_key(client, sent)
    update = device.send().json()["id"]

    find_client(str(give_next_credential(client).credential))
    replace_key(client, again, by=None)
    revoke_issuer(issuer, by=None)

    assert ModelUpdate.objects.get(pk=update).status == UpdateStatus.PENDING
    assert device.model.rounds.get().num_updates == 1


@given(st.integers(0, 127 + 512))
@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_signature_with_any_flipped_bit_is_refused(device: Device, settings: Settings, bit: int) -> None:
    settings.FMA_SIGNED_UPDATES = "required"
    header = device.header(BODY)
    raw = bytearray(bytes.fromhex(header.replace(" ", "")))
    raw[bit // 8] ^= 1 << (bit % 8)

    assert code_of(device.send(signature=f"{raw[:16].hex()} {raw[16:].hex()}")) == (403, "invalid_signature")


def test_unsigned_updates_take_no_query_more(device: Device, settings: Settings) -> None:
    counts = {}
    for policy in ("off", "known_keys"):
        settings.FMA_SIGNED_UPDATES = policy
        device.registration = make_client(device.model)
        device.send(headers={"fma-signature": ""})
        with CaptureQueriesContext(connection) as queries:
            body = encode(arrays(3.0))
            assert device.send(body, headers={"fma-signature": ""}).status_code == 201
        counts[policy] = len(queries)

    assert counts["off"] == counts["known_keys"]


@pytest.mark.parametrize(
    "change", [{"num_examples": 8}, {"metrics": {}}, {"client": None}, {"base_aggregate": None}], ids=str
)
def test_a_record_that_was_changed_is_found_by_its_signatures(
    settings: Settings, change: dict[str, Any]
) -> None:
    settings.FMA_SIGNED_UPDATES = "required"
    device = make_device(make_model(initial_model=weights(0.0)))
    device.send()
    base = aggregate_now(device.model)
    device.nonce = os.urandom(16)
    device.send(base_aggregate=base.pk, signature=device.header(BODY, base_aggregate=base.pk))
    aggregate_now(device.model)
    verified = verify_round(device.model, 2)
    assert (verified.num_signed, verified.other_files, verified.wrong_signatures) == (1, (), ())
    assert verified.num_other_keys == 0

    update = ModelUpdate.objects.filter(round__number=2)
    update.update(**{"client": make_client(device.model).client} if "client" in change else change)

    verified = verify_round(device.model, 2)
    assert verified.is_equal, "the mean of one update does not depend on what was changed"
    assert verified.wrong_signatures == (update.get().pk,)


def test_an_update_that_somebody_else_signed_in_the_record_is_found(settings: Settings) -> None:
    settings.FMA_SIGNED_UPDATES = "required"
    device = make_device(make_model(initial_model=weights(0.0)))
    device.send()
    aggregate_now(device.model)
    forger = Device(device.model, device.registration, Key())
    nonce, signature = forger.header(BODY, num_examples=8).split(" ")

    ModelUpdate.objects.update(num_examples=8)
    UpdateSignature.objects.update(public_key=forger.key.public.hex(), nonce=nonce, signature=signature)

    verified = verify_round(device.model)
    assert verified.wrong_signatures == (), "it is a signature of the key beside it"
    assert verified.num_other_keys == 1


@pytest.mark.parametrize("is_converted", [True, False])
def test_a_replaced_file_is_not_called_converted(settings: Settings, is_converted: bool) -> None:
    settings.FMA_SIGNED_UPDATES = "required"
    device = make_device(make_model(initial_model=weights(0.0)))
    body = b"".join(zstd_of([BODY])) if is_converted else BODY
    update = device.send(body, headers={"content-encoding": "zstd"} if is_converted else None).json()["id"]
    # Somebody with the database and the store puts another file in, before the round is aggregated.
    other = encode(arrays(9.0))
    sha256 = hashlib.sha256(other).hexdigest()
    get_store().put_bytes(other, sha256)
    ModelUpdate.objects.update(sha256=sha256, size_bytes=len(other))
    aggregate_now(device.model)

    verified = verify_round(device.model)

    assert verified.is_equal
    assert verified.other_files == (update,)
    told = _as_text(device.model, verified)
    assert "1 of these cover other bytes than the stored file" in told
    assert "converted it, or it was replaced" in told


def test_rounds_without_signatures_are_verified_as_before() -> None:
    device = make_device(make_model(initial_model=weights(0.0)))
    device.send()
    aggregate_now(device.model)

    assert verify_round(device.model).num_signed == 0
