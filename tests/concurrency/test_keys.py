"""Keys, certificates and signed updates that come at once, on whatever database the run uses."""

import hashlib
import uuid
from functools import partial
from types import NoneType
from typing import Any

import pytest
from pytest_django import Settings

from fma_core.arrays.codecs.safetensors import encode
from fma_core.errors import InvalidSignature
from fma_core.identity.certificate import certificate_of
from fma_core.identity.keys import sign
from fma_core.identity.update import UpdateStatement
from fma_django.clients.changes import replace_key
from fma_django.clients.issuers import add_issuer
from fma_django.clients.keys import SentKey, add_key, put_key, sent_key
from fma_django.errors import ClientHasKey, KeyTaken, SignatureReplayed
from fma_django.models import Client, FederatedModel, Issuer, ModelUpdate, Organisation, UpdateSignature
from fma_django.models.model_update import UpdateStatus
from fma_django.record.signed_updates import is_still_right
from fma_django.record.weights import JsonBody
from fma_django.updates.intake import Sender, SentSignature, UpdateFacts, accept, announce
from tests.api.conftest import storage  # noqa: F401  # autouse
from tests.concurrency.test_races import all_at_once
from tests.keys import SERVER, Key
from tests.records import arrays, make_client, make_model, weights

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.untraced]
TIMES = 50


def sent(members: dict[str, Any]) -> SentKey:
    key = sent_key(members, servers=(SERVER,))
    assert key is not None
    return key


def kinds(results: list[Any]) -> list[str]:
    return sorted({type(result).__name__ for result in results})


def test_one_key_that_many_clients_add_at_once_is_of_one() -> None:
    model, key = make_model(), Key()
    clients = [make_client(model).client for _ in range(TIMES)]

    results = all_at_once(*[partial(add_key, client, sent(key.of_client(client))) for client in clients])

    assert results.count(None) == 1
    assert kinds(results) == sorted([KeyTaken.__name__, "NoneType"])
    assert Client.objects.exclude(public_key=None).count() == 1


def test_of_many_keys_that_one_client_adds_at_once_it_has_one() -> None:
    client = make_client(make_model()).client
    copies = [Client.objects.get(pk=client.pk) for _ in range(TIMES)]

    results = all_at_once(*[partial(add_key, copy, sent(Key().of_client(copy))) for copy in copies])

    assert results.count(None) == 1
    assert kinds(results) == sorted([ClientHasKey.__name__, "NoneType"])


def test_an_issuer_that_is_entered_many_times_at_once_is_there_once() -> None:
    key = Key().public.hex()
    places = [Organisation.objects.create(name=f"{place}") for place in range(TIMES)]

    results = all_at_once(*[partial(add_issuer, place, key, by=None) for place in places])

    assert kinds(results) == sorted([Issuer.__name__, KeyTaken.__name__])
    assert Issuer.objects.count() == 1


def test_a_certificate_and_another_key_at_once_do_not_meet() -> None:
    model, issuing = make_model(), Key()
    add_issuer(Organisation.objects.create(name="hospital"), issuing.public.hex(), by=None)
    client, key = make_client(model).client, Key()
    add_key(client, sent(key.of_client(client)))
    for _ in range(10):
        new = Key()
        members = key.of_client(client, certificate=issuing.certify(key).to_json())
        copies = [Client.objects.get(pk=client.pk) for _ in range(4)]
        all_at_once(
            *[partial(add_key, copy, sent(members)) for copy in copies[1:]],
            partial(put_key, copies[0], sent(new.request_file())),
        )

        client = Client.objects.get(pk=client.pk)
        assert client.public_key == new.public.hex()
        assert client.certificate is None or certificate_of(client.certificate).public_key == new.public
        key = new


def test_updates_and_another_key_at_once_leave_none_of_the_former(settings: Settings) -> None:
    settings.FMA_SIGNED_UPDATES = "required"
    models = [
        make_model(initial_model=weights(0.0), requirement="require_x_updates", requirement_args=[99])
        for _ in range(2)
    ]
    client, key = make_client(*models).client, Key()
    add_key(client, sent(key.of_client(client)))
    for number in range(10):
        new = Key()
        sends = [
            partial(send_signed, model, client, key, uuid.uuid4().bytes, number + place / 8)
            for model in models
            for place in range(3)
        ]
        copy = Client.objects.get(pk=client.pk)
        results = all_at_once(*sends, partial(replace_key, copy, sent(new.request_file()), by=None))

        assert {type(result) for result in results} <= {ModelUpdate, InvalidSignature, NoneType}
        waiting = ModelUpdate.objects.filter(status=UpdateStatus.PENDING)
        assert not waiting.filter(signed__public_key=key.public.hex()).exists()
        assert all(
            model.rounds.get().num_updates == waiting.filter(federated_model=model).count()
            for model in models
        )
        key = new


@pytest.mark.parametrize("is_superseded", [False, True])
def test_a_signature_that_comes_many_times_at_once_counts_once(
    settings: Settings, is_superseded: bool
) -> None:
    settings.FMA_SIGNED_UPDATES = "required"
    model = make_model(initial_model=weights(0.0), requirement="require_x_updates", requirement_args=[9])
    client, key = make_client(model).client, Key()
    add_key(client, sent(key.of_client(client)))
    send = partial(send_signed, model, client, key)
    nonce = uuid.uuid4().bytes
    if is_superseded:
        send(nonce, 1.0)
        send(uuid.uuid4().bytes, 2.0)

    results = all_at_once(*[partial(send, nonce, 1.0)] * TIMES)

    assert kinds(results) == [SignatureReplayed.__name__ if is_superseded else ModelUpdate.__name__]
    assert ModelUpdate.objects.count() == UpdateSignature.objects.count() == (2 if is_superseded else 1)
    assert model.rounds.get().num_updates == 1
    assert all(is_still_right(signed) for signed in UpdateSignature.objects.all())


def send_signed(model: FederatedModel, client: Client, key: Key, nonce: bytes, value: float) -> ModelUpdate:
    body, client_id = encode(arrays(value)), uuid.UUID(str(client.pk))
    digest = hashlib.sha256(body).digest()
    statement = UpdateStatement(client_id, model.pk, 0, 1, {}, digest, nonce)
    signature = SentSignature(f"{nonce.hex()} {sign(key.private, statement.encode()).hex()}", digest.hex(), 0)
    expected = announce(Sender(model.pk, client_id), UpdateFacts(0), len(body), signature=signature)
    return accept(expected, JsonBody(weights(value)))
