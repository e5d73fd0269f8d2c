"""Weights in S3 that are fetched from there: the server says where, and the store asks nobody who is calling."""

from typing import Any

import httpx
import pytest
from rest_framework.test import APIClient

from fma_core.arrays.codecs.safetensors import decode
from fma_django.clients.registration import Registration
from fma_django.models import FederatedModel
from fma_django.storage import get_store
from tests.api.callers import API, SAFETENSORS
from tests.records import arrays, make_aggregate
from tests.servers.s3 import S3Bucket

pytestmark = [pytest.mark.django_db, pytest.mark.s3]


@pytest.fixture(autouse=True)
def storage(s3_bucket: S3Bucket, settings: Any) -> None:
    settings.FMA_STORAGE_URL = f"s3://{s3_bucket.name}/fma"
    settings.FMA_S3_ENDPOINT_URL = s3_bucket.server.endpoint_url
    settings.FMA_S3_PRESIGNED_SECONDS = 60


@pytest.fixture
def url(model: FederatedModel, ann: Registration) -> str:
    make_aggregate(model, ann.client, value=2.0)
    return f"{API}models/{model.pk}/get_latest_model/"


def test_weights_are_redirected_to_the_store(device: APIClient, url: str) -> None:
    answer = device.get(url, headers={"accept": SAFETENSORS})
    fetched = httpx.get(answer["Location"])
    part = httpx.get(answer["Location"], headers={"Range": "bytes=2-9"})

    assert (answer.status_code, fetched.status_code) == (307, 200)
    assert answer["FMA-Aggregate"]
    assert decode(fetched.content)["w"].tolist() == arrays(2.0)["w"].tolist()
    assert (part.headers["content-range"][:9], part.content) == ("bytes 2-9", fetched.content[2:10])


def test_a_forged_address_is_refused_by_the_store(device: APIClient, url: str) -> None:
    location = device.get(url, headers={"accept": SAFETENSORS})["Location"]

    assert httpx.get(location.replace("X-Amz-Expires=60", "X-Amz-Expires=9999")).status_code == 403


def test_who_has_the_weights_is_not_redirected(device: APIClient, url: str) -> None:
    headers = {"accept": SAFETENSORS}
    etag = device.get(url, headers=headers)["ETag"]

    assert device.get(url, headers={**headers, "if-none-match": etag}).status_code == 304


@pytest.mark.parametrize("how", ["json", "head", "off"])
def test_all_else_comes_from_the_server(device: APIClient, url: str, settings: Any, how: str) -> None:
    if how == "off":
        settings.FMA_S3_PRESIGNED_SECONDS = 0
    ask = device.head if how == "head" else device.get

    answer = ask(url, headers={} if how == "json" else {"accept": SAFETENSORS})

    assert answer.status_code == 200
    answer.close()


@pytest.mark.parametrize("accept", ["application/json", SAFETENSORS])
@pytest.mark.parametrize("left_bytes", [0, 40])
def test_weights_that_were_cut_are_not_sent_by_the_server(
    device: APIClient, url: str, settings: Any, accept: str, left_bytes: int
) -> None:
    settings.FMA_S3_PRESIGNED_SECONDS = 0
    store = get_store()
    for blob in store.blobs():
        store.put_bytes(b"".join(store.open_range(blob.sha256))[:left_bytes], blob.sha256)

    answer = device.get(url, headers={"accept": accept})

    assert (answer.status_code, answer.json()["code"]) == (500, "blob_corrupt")
