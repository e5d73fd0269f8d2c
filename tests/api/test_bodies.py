"""Compressed and quantised bodies: what is stored is the canonical file in the model's own dtypes."""

import hashlib
from base64 import b64encode
from typing import Any

import numpy as np
import pytest
from django.middleware.csrf import get_token
from rest_framework.test import APIClient

from fma_connect.encoding import encoded
from fma_core.arrays.codecs.safetensors import encode
from fma_core.arrays.codecs.zstd import zstd  # type: ignore[attr-defined]
from fma_core.arrays.spec import Spec
from fma_django.clients.registration import Registration
from fma_django.models import FederatedModel, ModelUpdate
from fma_django.storage import get_store
from tests.api.callers import API, SAFETENSORS
from tests.records import arrays, weights

pytestmark = pytest.mark.django_db


@pytest.fixture
def model(model: FederatedModel) -> FederatedModel:
    model.spec = Spec.of(arrays()).to_json()
    model.save(update_fields=["spec"])
    return model


def send(caller: APIClient, model: FederatedModel, body: bytes, **headers: str) -> Any:
    url = f"{API}model_updates/?federated_model={model.pk}"
    return caller.generic("POST", url, body, SAFETENSORS, headers=headers)


def digest(body: bytes) -> str:
    return f"sha-256=:{b64encode(hashlib.sha256(body).digest()).decode()}:"


def stored() -> bytes:
    return b"".join(get_store().open_range(ModelUpdate.objects.get().sha256))


@pytest.mark.parametrize("quantise", [None, "float16", "bfloat16", "int8"])
@pytest.mark.parametrize("compress", [False, True])
def test_what_our_client_packs_is_stored_as_the_model_has_it(
    device: APIClient, model: FederatedModel, quantise: Any, compress: bool
) -> None:
    body = encoded(arrays(3.0), compress=compress, quantise=quantise)
    headers = {name: value for name, value in body.headers.items() if name != "Content-Type"}

    answer = send(device, model, b"".join(body.pieces()), **headers)

    assert answer.status_code == 201, answer.content
    assert stored() == encode(arrays(3.0))  # threes and their like are exact in all of them


def test_the_digest_is_of_the_bytes_that_travel(device: APIClient, model: FederatedModel) -> None:
    plain = encode(arrays())
    frame = zstd.compress(plain)
    coded = {"Content-Encoding": "zstd"}

    assert send(device, model, frame, **coded, **{"Content-Digest": digest(plain)}).status_code == 400
    assert send(device, model, frame, **coded, **{"Content-Digest": digest(frame)}).status_code == 201


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd, gzip"])
def test_other_codings_are_415_and_told_what_is_read(
    device: APIClient, model: FederatedModel, coding: str
) -> None:
    answer = send(device, model, encode(arrays()), **{"Content-Encoding": coding})

    assert answer.status_code == 415
    assert answer.json()["code"] == "unsupported_coding"
    assert answer.headers["Accept-Encoding"] == "zstd"


def test_json_is_not_compressed(device: APIClient, model: FederatedModel) -> None:
    answer = device.generic(
        "POST",
        f"{API}model_updates/",
        zstd.compress(b"{}"),
        "application/json",
        headers={"Content-Encoding": "zstd"},
    )

    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_coding")


def test_damaged_frames_are_400(device: APIClient, model: FederatedModel) -> None:
    answer = send(device, model, zstd.compress(encode(arrays()))[:-3], **{"Content-Encoding": "zstd"})

    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_zstd")
    assert list(get_store().blobs()) == []


def test_hostile_scales_are_422(device: APIClient, model: FederatedModel) -> None:
    body = b"".join(encoded(arrays(), quantise="int8").pieces())
    hostile = body.replace(b"fma.scales", b"fma.skales")

    answer = send(device, model, hostile)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_quantisation")
    assert answer.json()["data"]


def test_narrower_numbers_that_nobody_declared_are_422(device: APIClient, model: FederatedModel) -> None:
    narrow = {name: array.astype(np.float16) for name, array in arrays().items()}

    assert send(device, model, encode(narrow)).json()["code"] == "dtype_mismatch"


@pytest.mark.django_db
def test_a_developer_with_a_session_sends_an_update(
    model: FederatedModel, ann: Registration, alice: Any
) -> None:
    browser = APIClient(enforce_csrf_checks=True)
    browser.force_login(alice)
    token = get_token(browser.get("/admin/login/").wsgi_request)
    browser.cookies["csrftoken"] = token
    body = {"federated_model": model.pk, "client": str(ann.client.pk), "data": weights()}
    path = f"{API}model_updates/"

    assert browser.post(path, body, format="json").status_code == 403
    assert browser.post(path, body, format="json", headers={"x-csrftoken": token}).status_code == 201
