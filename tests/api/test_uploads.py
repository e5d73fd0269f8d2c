"""Uploads in parts: what arrived stays, offsets are true, and one upload is one update."""

import base64
import errno
import hashlib
import io
import os
import resource
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.db import OperationalError
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from fma_connect.encoding import EncodedBody
from fma_core.arrays.codecs import zstd
from fma_core.arrays.codecs.safetensors import encode
from fma_core.arrays.spec import Spec
from fma_django.clients.joining import join
from fma_django.clients.registration import Registration, revoke_client
from fma_django.models import FederatedModel, ModelUpdate, Upload
from fma_django.rates import of_this_process
from fma_django.storage import part_file
from fma_django.updates.in_parts import finish_update
from fma_django.updates.uploads import sweep_uploads
from fma_django.work.sweep import sweep_files
from tests.api.callers import API, SAFETENSORS, as_client, as_user, stored_files
from tests.records import (
    aggregate_now,
    arrays,
    change_now,
    make_client,
    make_model,
    make_user,
    send_update,
    weights,
)

pytestmark = pytest.mark.django_db

UPLOADS = f"{API}uploads/"
UPDATES = f"{API}model_updates/"
PART = "application/offset+octet-stream"
TUS = {"Tus-Resumable": "1.0.0"}
BODY = encode(arrays(3.0))


def begin(caller: APIClient, model: FederatedModel, query: str = "", /, **headers: str) -> Any:
    said = {"Upload-Length": str(len(BODY)), **TUS, **_dashed(headers)}
    return caller.post(f"{UPLOADS}?federated_model={model.pk}{query}", headers=said)


def begun(caller: APIClient, model: FederatedModel, query: str = "", /, **headers: str) -> str:
    answer = begin(caller, model, query, **headers)
    assert answer.status_code == 201, answer.content
    where: str = answer.headers["Location"]
    return where


def send(caller: APIClient, url: str, part: bytes, at: int, **headers: str) -> Any:
    said = {"Upload-Offset": str(at), **TUS, **_dashed(headers)}
    return caller.generic("PATCH", url, part, PART, headers=said)


def offset(caller: APIClient, url: str) -> int:
    answer = caller.head(url, headers=TUS)
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    return int(answer.headers["Upload-Offset"])


def finish(caller: APIClient, url: str, **headers: str) -> Any:
    key = url.rstrip("/").rpartition("/")[2]
    return caller.post(f"{UPDATES}?upload={key}", headers=_dashed(headers))


def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def _dashed(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def _sha256(body: bytes) -> str:
    return base64.b64encode(hashlib.sha256(body).digest()).decode()


def test_parts_become_the_update_that_one_body_would_be(device: APIClient, model: FederatedModel) -> None:
    url = begun(device, model, "&num_examples=7&metrics=%7B%22loss%22%3A0.5%7D")
    sent = send(device, url, BODY[:10], 0)
    assert (sent.status_code, sent.headers["Upload-Offset"], offset(device, url)) == (204, "10", 10)
    assert send(device, url, BODY[10:], 10).status_code == 204

    answer = finish(device, url)

    assert answer.status_code == 201
    update = answer.json()
    assert (update["num_examples"], update["metrics"]) == (7, {"loss": 0.5})
    assert update["sha256"] == hashlib.sha256(BODY).hexdigest()


def test_an_upload_says_how_far_it_is_and_until_when(device: APIClient, model: FederatedModel) -> None:
    answer = begin(device, model)

    assert answer.json() == {
        "id": answer.headers["Location"].split("/")[-2],
        "offset": 0,
        "size_bytes": len(BODY),
        "expires_on": answer.json()["expires_on"],
    }
    assert "GMT" in answer.headers["Upload-Expires"]
    head = device.head(answer.headers["Location"], headers=TUS)
    assert (head.headers["Upload-Offset"], head.headers["Upload-Length"]) == ("0", str(len(BODY)))


def test_options_say_what_of_tus_is_spoken(device: APIClient) -> None:
    answer = device.options(UPLOADS)

    assert (answer.status_code, answer.headers["Tus-Version"]) == (204, "1.0.0")
    assert answer.headers["Tus-Extension"] == "creation,expiration,checksum,termination"


@pytest.mark.parametrize("version", ["0.2.2", ""])
def test_another_version_of_tus_is_refused(device: APIClient, model: FederatedModel, version: str) -> None:
    answer = begin(device, model, Tus_Resumable=version)

    assert code_of(answer) == (412, "unsupported_tus")
    assert answer.headers["Tus-Version"] == "1.0.0"


def test_networks_without_patch_and_delete_are_served(device: APIClient, model: FederatedModel) -> None:
    url = begun(device, model)
    said = {**TUS, "Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}

    assert device.generic("POST", url, BODY[:5], PART, headers=said).status_code == 204
    assert offset(device, url) == 5


# What is refused before the bytes


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("&base_aggregate=999", (400, "unknown_base_aggregate")),
        ("&num_examples=0", (400, "invalid")),
        ("&metrics=7", (400, "invalid")),
    ],
)
def test_what_the_facts_forbid_is_refused_at_the_beginning(
    device: APIClient, model: FederatedModel, query: str, expected: tuple[int, str]
) -> None:
    assert code_of(begin(device, model, query)) == expected


@pytest.mark.parametrize("length", ["", "0", "-1", "seven", "9" * 30])
def test_a_length_must_be_a_number(device: APIClient, model: FederatedModel, length: str) -> None:
    assert code_of(begin(device, model, Upload_Length=length)) == (400, "invalid_header")


def test_a_stranger_a_developer_and_a_revoked_client_begin_nothing(
    device: APIClient, owner: APIClient, ann: Registration, model: FederatedModel
) -> None:
    stranger = as_client(make_client(make_model()))
    assert code_of(begin(stranger, model)) == (403, "not_registered")
    assert begin(owner, model).status_code == 403
    revoke_client(ann.client)
    assert begin(device, model).status_code == 401
    assert not Upload.objects.exists()


def test_an_upload_is_seen_by_its_client_alone(
    device: APIClient, owner: APIClient, model: FederatedModel
) -> None:
    url = begun(device, model)
    other = as_client(make_client(model))

    for caller in (other, owner, as_user(make_user("sam", staff=True))):
        assert code_of(caller.get(url, headers=TUS)) == (404, "unknown_upload")
        assert code_of(send(caller, url, BODY, 0)) == (404, "unknown_upload")
        assert code_of(caller.delete(url, headers=TUS)) == (404, "unknown_upload")
    assert code_of(finish(other, url)) == (404, "unknown_upload")
    assert offset(device, url) == 0


def test_more_than_an_update_may_have_is_refused(
    device: APIClient, model: FederatedModel, settings: Settings
) -> None:
    settings.FMA_MAX_UPDATE_BYTES = len(BODY) - 1

    assert code_of(begin(device, model)) == (413, "too_large")


@pytest.mark.parametrize("length", [1, 200, 3000 + 2**21, 2**40])
def test_a_size_that_no_body_of_the_model_has_is_refused_at_the_beginning(
    alice: Any, settings: Settings, length: int
) -> None:
    settings.FMA_MAX_UPDATE_BYTES = 2**41
    model = make_model(alice, initial_model={"w": [[0.5] * 30] * 10})

    refused = begin(as_client(make_client(model)), model, Upload_Length=str(length))

    assert code_of(refused) == (422, "spec_mismatch")
    assert str(length) in refused.json()["detail"]
    assert not Upload.objects.exists()


@pytest.mark.parametrize("how", [None, "int8", "float16", "bfloat16"])
@pytest.mark.parametrize("sides", [(), (1,), (30, 7), (1, 2, 5)])
def test_each_form_of_the_model_s_arrays_has_a_size_that_is_taken(
    alice: Any, how: Any, sides: tuple[int, ...]
) -> None:
    sent = {"b": np.ones(sides, np.float32), "w": np.ones((2, *sides))}
    model = make_model(alice, initial_model=weights())
    FederatedModel.objects.filter(pk=model.pk).update(spec=Spec.of(sent).to_json(), weights_layout="named")
    device = as_client(make_client(model))
    body = b"".join(EncodedBody(sent, how).pieces())

    url = begun(device, model, Upload_Length=str(len(body)))
    send(device, url, body, 0)

    assert finish(device, url).status_code == 201


# Parts


def test_a_part_that_begins_elsewhere_is_refused(device: APIClient, model: FederatedModel) -> None:
    url = begun(device, model)
    send(device, url, BODY[:10], 0)

    for at in (0, 9, 11):
        assert code_of(send(device, url, BODY[10:], at)) == (
            (409, "wrong_offset") if at < 11 else (413, "too_large")
        )
    assert offset(device, url) == 10


def test_more_than_was_announced_is_refused_unread(device: APIClient, model: FederatedModel) -> None:
    url = begun(device, model)

    assert code_of(send(device, url, BODY + b"!", 0)) == (413, "too_large")
    assert offset(device, url) == 0


def test_a_part_of_another_type_is_refused(device: APIClient, model: FederatedModel) -> None:
    url = begun(device, model)
    answer = device.generic("PATCH", url, BODY, SAFETENSORS, headers={"Upload-Offset": "0", **TUS})

    assert code_of(answer) == (415, "unsupported_media_type")


def test_a_part_that_is_cut_leaves_what_arrived(device: APIClient, model: FederatedModel) -> None:
    url = begun(device, model)
    said = {"Upload-Offset": "0", **TUS}

    cut = {"CONTENT_LENGTH": str(len(BODY)), "wsgi.input": io.BytesIO(BODY[:33])}
    answer = device.generic("PATCH", url, BODY[:33], PART, headers=said, **cut)

    assert code_of(answer) == (400, "truncated_body")
    assert offset(device, url) == 33
    assert send(device, url, BODY[33:], 33).status_code == 204
    assert finish(device, url).json()["sha256"] == hashlib.sha256(BODY).hexdigest()


def test_a_part_with_another_checksum_is_not_kept(device: APIClient, model: FederatedModel) -> None:
    url = begun(device, model)
    send(device, url, BODY[:4], 0, Upload_Checksum=f"sha256 {_sha256(BODY[:4])}")

    answer = send(device, url, BODY[4:20], 4, Upload_Checksum=f"sha256 {_sha256(b'other')}")

    assert code_of(answer) == (460, "checksum_mismatch")
    assert offset(device, url) == 4


@pytest.mark.parametrize(
    "checksum", ["md5 AAAA", "sha256 AAAA", "sha256", "sha256 !", "sha256 é", "sha256 AAAAé"]
)
def test_a_checksum_must_be_readable(device: APIClient, model: FederatedModel, checksum: str) -> None:
    answer = send(device, begun(device, model), BODY, 0, Upload_Checksum=checksum)

    assert code_of(answer) == (400, "invalid_header")


@pytest.mark.parametrize("length", ["P1D", "-5", "1_0", "²", "1.0", "9" * 40])
def test_a_part_with_a_length_that_is_no_number_is_400(
    device: APIClient, model: FederatedModel, length: str
) -> None:
    url = begun(device, model)
    answer = device.generic(
        "PATCH", url, BODY, PART, headers={"Upload-Offset": "0", **TUS}, CONTENT_LENGTH=length
    )

    assert code_of(answer) == (400, "invalid_header")
    assert offset(device, url) == 0


def test_of_two_who_send_at_once_one_is_told_and_no_byte_is_twice(tmp_path: Path) -> None:
    """A writer whose connection was thought dead comes back to life after another one has taken its place."""
    part = part_file.PartFile(tmp_path / "part")
    part.create()
    new_one_is_there = threading.Event()
    pieces = iter([b"first", b"late", b""])

    def stalled(size: int) -> bytes:
        piece = next(pieces)
        if piece == b"late":
            assert part.append(lambda _: b"second", at=5, length=6) == 11
            new_one_is_there.set()
        return piece

    with pytest.raises(part_file.PartMoved) as caught:
        part.append(stalled, at=0, length=9)

    assert new_one_is_there.is_set()
    assert caught.value.size_bytes == 11
    assert part.path.read_bytes() == b"firstsecond"


def test_a_part_of_an_upload_that_was_given_up_meanwhile_is_told_so(tmp_path: Path) -> None:
    part = part_file.PartFile(tmp_path / "part")
    part.create()

    def read(size: int) -> bytes:
        part.remove()
        return b"all"

    with pytest.raises(part_file.PartGone):
        part.append(read, at=0, length=3)


# Finishing


def test_an_upload_is_one_update_however_often_it_is_posted(device: APIClient, model: FederatedModel) -> None:
    url = begun(device, model)
    send(device, url, BODY, 0)

    answers = [finish(device, url), finish(device, url, Idempotency_Key="k"), finish(device, url)]
    aggregate_now(model)
    answers.append(finish(device, url))

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert ModelUpdate.objects.count() == 1


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("&num_examples=7", {}),
        ("&base_aggregate=0", {}),
        ("&metrics={}", {}),
        ("&federated_model=1", {}),
        ("", {"headers": {"FMA-Metrics": '{"loss": 1}'}}),
        ("", {"data": {"num_examples": 7}, "format": "json"}),
        ("", {"data": {"metric": {}}, "format": "json"}),
        ("", {"data": [1], "format": "json"}),
        ("", {"data": BODY, "content_type": SAFETENSORS}),
        ("", {"data": BODY, "content_type": "text/plain"}),
    ],
)
def test_facts_beside_an_upload_are_refused(
    device: APIClient, model: FederatedModel, query: str, options: dict[str, Any]
) -> None:
    url = begun(device, model)
    send(device, url, BODY, 0)

    refused = device.post(f"{UPDATES}?upload={url.split('/')[-2]}{query}", **options)

    assert code_of(refused) == (400, "invalid")
    assert not ModelUpdate.objects.exists()
    assert finish(device, url).status_code == 201


def test_an_empty_object_beside_an_upload_says_nothing(device: APIClient, model: FederatedModel) -> None:
    url = begun(device, model)
    send(device, url, BODY, 0)

    assert device.post(f"{UPDATES}?upload={url.split('/')[-2]}", {}, "json").status_code == 201


LARGE = encode({"w": np.arange(300_000, dtype=np.float64)})


def begun_with(device: APIClient, model: FederatedModel, body: bytes) -> str:
    url = begun(device, model, Upload_Length=str(len(body)))
    assert send(device, url, body, 0).status_code == 204
    return url


@pytest.mark.parametrize("is_known", [False, True], ids=["first", "later"])
def test_a_finished_upload_is_stored_without_a_copy(
    device: APIClient, model: FederatedModel, storage: Path, is_known: bool
) -> None:
    if is_known:
        finish(device, begun_with(device, model, encode({"w": np.zeros(300_000)})))
    url = begun_with(device, model, LARGE)
    [part] = storage.rglob("*.part")
    inode = part.stat().st_ino

    sha256 = finish(device, url).json()["sha256"]

    assert sha256 == hashlib.sha256(LARGE).hexdigest()
    [blob] = storage.rglob(sha256)
    assert (blob.stat().st_ino, blob.read_bytes() == LARGE) == (inode, True)
    assert not list(storage.rglob("*.part"))


def test_an_upload_that_is_no_canonical_file_is_stored_as_one(
    device: APIClient, model: FederatedModel, storage: Path
) -> None:
    header = LARGE[8 : 8 + int.from_bytes(LARGE[:8], "little")] + b" " * 8
    url = begun_with(device, model, len(header).to_bytes(8, "little") + header + LARGE[8 + len(header) - 8 :])

    assert finish(device, url).json()["sha256"] == hashlib.sha256(LARGE).hexdigest()
    assert not list(storage.rglob("*.part"))


def test_a_file_system_without_second_names_is_served(
    device: APIClient, model: FederatedModel, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    url = begun_with(device, model, LARGE)

    assert finish(device, url).json()["sha256"] == hashlib.sha256(LARGE).hexdigest()
    assert not list(storage.rglob("*.part"))


def test_a_value_that_is_not_finite_is_found_in_a_file_that_is_not_copied(
    device: APIClient, model: FederatedModel, storage: Path
) -> None:
    url = begun_with(device, model, LARGE[:-8] + np.float64("inf").tobytes())

    assert code_of(finish(device, url)) == (422, "non_finite_value")
    assert stored_files(storage) == []


def test_an_upload_whose_update_is_refused_is_there_for_another_try(
    device: APIClient, model: FederatedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the file has got its name in the store, the transaction may fail."""
    url = begun_with(device, model, LARGE)

    def fail(*_: Any) -> None:
        raise OperationalError("database is locked")

    with monkeypatch.context() as patched:
        patched.setattr("fma_django.updates.intake._take", fail)
        assert finish(device, url).status_code == 503

    assert offset(device, url) == len(LARGE)
    assert finish(device, url).json()["sha256"] == hashlib.sha256(LARGE).hexdigest()


def test_a_late_checksum_of_the_last_part_does_not_cut_a_stored_file(
    device: APIClient, model: FederatedModel, storage: Path
) -> None:
    """A part is cut off when its checksum is of other bytes, and meanwhile another request has finished the upload."""
    url = begun_with(device, model, LARGE[:-9])
    [path] = storage.rglob("*.part")
    pieces = iter([LARGE[-9:]])

    class Late(part_file.PartFile):
        def _cut(self, fd: int, end: int, *, if_longer_than: int) -> None:
            assert finish(device, url).status_code == 201
            super()._cut(fd, end, if_longer_than=if_longer_than)

    Upload.objects.update(size_bytes=len(LARGE))
    with pytest.raises(part_file.PartDamaged):
        Late(path).append(lambda _: next(pieces), at=len(LARGE) - 9, length=9, sha256=b"other")

    [blob] = storage.rglob(hashlib.sha256(LARGE).hexdigest())
    assert blob.read_bytes() == LARGE


def test_who_looked_before_another_one_finished_gets_that_ones_update(
    device: APIClient, model: FederatedModel
) -> None:
    url = begun(device, model)
    send(device, url, BODY, 0)
    looked_at = Upload.objects.select_related("federated_model", "client", "update").get()
    made = finish(device, url).json()["id"]

    assert finish_update(looked_at).pk == made


def test_a_key_is_one_update_also_of_two_uploads(device: APIClient, model: FederatedModel) -> None:
    urls = [begun(device, model) for _ in range(2)]
    for url in urls:
        send(device, url, BODY, 0)

    first, second = (finish(device, url, Idempotency_Key="the-same") for url in urls)

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()


def test_the_key_of_an_upload_that_was_refused_is_for_the_next(
    device: APIClient, model: FederatedModel
) -> None:
    answers = []
    for body in (b"\xff" * len(BODY), BODY):
        url = begun(device, model)
        send(device, url, body, 0)
        answers.append(finish(device, url, Idempotency_Key="the-same").status_code)

    assert answers == [400, 201]


def test_an_upload_is_begun_once_for_a_key(device: APIClient, model: FederatedModel) -> None:
    assert begun(device, model, Idempotency_Key="k") == begun(device, model, Idempotency_Key="k")
    other = begin(device, model, "&num_examples=2", Idempotency_Key="k")
    assert code_of(other) == (422, "idempotency_key_reused")


def test_an_upload_that_is_not_complete_is_no_update(device: APIClient, model: FederatedModel) -> None:
    url = begun(device, model)
    send(device, url, BODY[:-1], 0)

    assert code_of(finish(device, url)) == (409, "upload_incomplete")
    send(device, url, BODY[-1:], len(BODY) - 1)
    assert finish(device, url).status_code == 201


def test_nothing_is_left_of_a_finished_upload_but_its_update(
    device: APIClient, model: FederatedModel, storage: Path
) -> None:
    url = begun(device, model)
    send(device, url, BODY, 0)
    finish(device, url)

    assert [name.split("/")[0] for name in stored_files(storage)] == ["blobs"]
    assert offset(device, url) == len(BODY)
    assert send(device, url, b"", len(BODY)).status_code == 204


def test_other_bytes_than_were_promised_are_refused(device: APIClient, model: FederatedModel) -> None:
    url = begun(device, model, Repr_Digest=f"sha-256=:{_sha256(b'other')}:")
    send(device, url, BODY, 0)

    refused = finish(device, url)
    assert code_of(refused) == (400, "digest_mismatch")
    assert "Repr-Digest" in refused.json()["detail"]
    assert not ModelUpdate.objects.exists()


@pytest.mark.parametrize(
    "body", [BODY[:-8] + np.float64("nan").tobytes(), b"\xff" * len(BODY)], ids=["nan", "rubbish"]
)
def test_an_upload_whose_bytes_are_refused_is_gone(
    device: APIClient, model: FederatedModel, storage: Path, body: bytes
) -> None:
    url = begun(device, model)
    send(device, url, body, 0)

    assert finish(device, url).status_code in {400, 422}
    assert code_of(finish(device, url)) == (404, "unknown_upload")
    assert stored_files(storage) == []


def test_of_two_who_finish_an_upload_at_once_one_waits(
    device: APIClient, model: FederatedModel, storage: Path
) -> None:
    url = begun(device, model)
    send(device, url, BODY, 0)
    [path] = storage.rglob("*.part")

    with part_file.PartFile(path).held():
        busy = finish(device, url)

    assert (*code_of(busy), busy.headers["Retry-After"]) == (429, "upload_busy", "2")
    assert finish(device, url).status_code == 201


def test_an_upload_for_a_round_that_has_closed_goes_into_the_next(
    device: APIClient, model: FederatedModel
) -> None:
    url = begun(device, model)
    send(device, url, BODY[:9], 0)
    send_update(model, make_client(model).client)
    aggregate_now(model)

    assert send(device, url, BODY[9:], 9).status_code == 204
    assert finish(device, url).json()["round"] == 2


def test_an_upload_keeps_the_base_that_followed_when_it_began(alice: Any) -> None:
    model = make_model(alice, initial_model=weights(), optimiser={"name": "sgd"})
    ann = make_client(model)
    device = as_client(ann)
    url = begun(device, model)  # from the initial model: there is no other
    send(device, url, BODY[:9], 0)
    send_update(model, make_client(model).client)
    first = aggregate_now(model)

    assert send(device, url, BODY[9:], 9).status_code == 204
    assert finish(device, url).json()["base_aggregate"] is None
    assert code_of(begin(device, model)) == (422, "base_aggregate_required")
    other = make_client(model)
    assert join(model, other.client).is_accepted
    url = begun(as_client(other), model)
    send(as_client(other), url, BODY, 0)
    assert finish(as_client(other), url).json()["base_aggregate"] == first.pk


def test_an_upload_that_came_too_late_is_refused_before_the_rest_travels(
    device: APIClient, ann: Registration, model: FederatedModel
) -> None:
    change_now(model, {"round_policy": {"late_updates": "refuse"}})
    send_update(model, ann.client)
    first = aggregate_now(model)
    url = begun(device, model, f"&base_aggregate={first.pk}")
    send(device, url, BODY[:9], 0)
    send_update(model, make_client(model).client, base_aggregate=first)
    aggregate_now(model)

    assert code_of(send(device, url, BODY[9:], 9)) == (409, "late_update")
    assert offset(device, url) == 9


def test_an_upload_of_a_client_that_was_revoked_is_refused_and_swept(
    device: APIClient, ann: Registration, model: FederatedModel, storage: Path
) -> None:
    url = begun(device, model)
    revoke_client(ann.client)

    assert send(device, url, BODY, 0).status_code == 401
    assert sweep_uploads() == 1
    assert stored_files(storage) == []


def test_the_whole_may_be_compressed(device: APIClient, model: FederatedModel) -> None:
    frame = b"".join(zstd.encoded([BODY]))
    coded = {"Content_Encoding": "zstd", "Upload_Length": str(len(frame))}
    assert code_of(begin(device, model, **coded)) == (415, "unsupported_coding")  # of what arrays?
    send_update(model, make_client(model).client)
    url = begun(device, model, **coded)
    send(device, url, frame[:20], 0)
    send(device, url, frame[20:], 20)

    assert finish(device, url).json()["sha256"] == hashlib.sha256(BODY).hexdigest()
    assert code_of(begin(device, model, Content_Encoding="br"))[0] == 415


# Bounds


def test_an_upload_can_be_given_up(device: APIClient, model: FederatedModel, storage: Path) -> None:
    url = begun(device, model)
    send(device, url, BODY[:5], 0)

    assert device.delete(url, headers=TUS).status_code == 204
    assert stored_files(storage) == []
    assert device.head(url, headers=TUS).status_code == 404
    gone = device.get(url, headers=TUS), send(device, url, BODY, 0), device.delete(url, headers=TUS)
    assert {code_of(answer) for answer in gone} == {(404, "unknown_upload")}


def test_an_unreadable_digest_is_told_by_its_name(device: APIClient, model: FederatedModel) -> None:
    refused = begin(device, model, Repr_Digest="sha-256=abc")

    assert code_of(refused) == (400, "invalid_header")
    assert "Repr-Digest" in refused.json()["detail"]


def test_an_upload_that_another_machine_has_is_told_so(
    device: APIClient, model: FederatedModel, settings: Settings, tmp_path: Path, caplog: Any
) -> None:
    """Two machines with one database, each with a spool of its own: a request comes to the other one."""
    url = begun(device, model, Idempotency_Key="k")
    send(device, url, BODY[:10], 0)
    first = settings.FMA_STORAGE_URL
    settings.FMA_STORAGE_URL = (tmp_path / "other machine").as_uri()

    answers = [
        send(device, url, BODY[10:], 10),
        device.get(url, headers=TUS),
        finish(device, url),
        finish(device, url, Idempotency_Key="f"),
        begin(device, model, Idempotency_Key="k"),
    ]
    assert {code_of(answer) for answer in answers} == {(409, "upload_elsewhere")}
    assert all("FMA_SPOOL_DIR" in answer.json()["detail"] for answer in answers)
    assert device.head(url, headers=TUS).status_code == 409
    assert "upload_elsewhere" in caplog.text

    settings.FMA_STORAGE_URL = first
    assert send(device, url, BODY[10:], 10).status_code == 204
    made = finish(device, url).json()["id"]
    settings.FMA_STORAGE_URL = (tmp_path / "other machine").as_uri()
    assert finish(device, url).json()["id"] == made
    assert offset(device, url) == len(BODY)


@pytest.mark.parametrize("spool", ["shared", "of a version before"])
def test_parts_that_are_gone_from_their_own_spool_are_unknown(
    device: APIClient, model: FederatedModel, storage: Path, spool: str
) -> None:
    url = begun(device, model)
    if spool != "shared":
        Upload.objects.update(spool=None)
    for path in storage.rglob("*.part"):
        path.unlink()

    assert code_of(send(device, url, BODY, 0)) == (404, "unknown_upload")


def test_a_young_upload_of_another_machine_does_not_give_way(
    device: APIClient, model: FederatedModel, settings: Settings, tmp_path: Path
) -> None:
    settings.FMA_MAX_UPLOADS = 1
    begun(device, model)
    settings.FMA_STORAGE_URL = (tmp_path / "other machine").as_uri()

    assert code_of(begin(device, model)) == (429, "too_many_uploads")
    Upload.objects.update(created_on=timezone.now() - timedelta(minutes=11))
    begun(device, model)


def test_an_upload_expires(
    device: APIClient, model: FederatedModel, storage: Path, settings: Settings
) -> None:
    url = begun(device, model)
    Upload.objects.update(expires_on=timezone.now() - timedelta(seconds=1))

    assert send(device, url, BODY, 0).status_code == 404
    assert code_of(finish(device, url)) == (404, "unknown_upload")
    sweep_files()
    sweep_uploads()
    assert stored_files(storage) == []
    assert not Upload.objects.exists()


def test_a_quiet_upload_outlives_the_sweep_of_other_files(
    device: APIClient, model: FederatedModel, storage: Path
) -> None:
    url = begun(device, model)
    send(device, url, BODY[:5], 0)
    for path in storage.rglob("*.part"):
        os.utime(path, (0, 0))

    sweep_files()
    sweep_uploads()

    assert offset(device, url) == 5


def test_parts_that_must_have_expired_go_where_no_sweep_comes(
    device: APIClient, model: FederatedModel, storage: Path
) -> None:
    begun(device, model)
    for path in storage.rglob("*.part"):
        os.utime(path, (0, 0))

    begun(device, model)

    assert len(list(storage.rglob("*.part"))) == 1


def test_a_part_that_no_row_speaks_of_is_swept(
    device: APIClient, model: FederatedModel, storage: Path
) -> None:
    begun(device, model)
    Upload.objects.all().delete()  # as when its model is deleted
    assert sweep_uploads() == 0  # it may be an upload whose row is on its way
    for path in storage.rglob("*.part"):
        os.utime(path, (0, 0))

    assert sweep_uploads() == 1


@pytest.mark.parametrize("bound", ["FMA_MAX_UPLOADS", "FMA_MAX_UPLOADING_BYTES"])
def test_a_client_begins_no_more_than_it_may(
    device: APIClient,
    model: FederatedModel,
    storage: Path,
    settings: Settings,
    bound: str,
    django_capture_on_commit_callbacks: Any,
) -> None:
    setattr(settings, bound, {"FMA_MAX_UPLOADS": 2, "FMA_MAX_UPLOADING_BYTES": 2 * len(BODY)}[bound])
    quiet, busy = begun(device, model), begun(device, model)
    refused = begin(device, model)
    assert code_of(refused) == (429, "too_many_uploads")
    assert int(refused.headers["Retry-After"]) > 0
    begun(as_client(make_client(model)), model)  # others have bounds of their own

    [part] = [path for path in storage.rglob("*.part") if path.stem == quiet.split("/")[-2].replace("-", "")]
    os.utime(part, (time.time() - 700,) * 2)
    with django_capture_on_commit_callbacks(execute=True):
        begun(device, model)

    assert not part.exists()
    assert device.head(quiet, headers=TUS).status_code == 404
    assert offset(device, busy) == 0


def test_nothing_gives_way_to_an_upload_that_is_refused(
    device: APIClient, model: FederatedModel, storage: Path, settings: Settings
) -> None:
    settings.FMA_MAX_UPLOADING_BYTES = 2 * len(BODY)
    quiet, _busy = begun(device, model), begun(device, model)
    [part] = [path for path in storage.rglob("*.part") if path.stem == quiet.split("/")[-2].replace("-", "")]
    os.utime(part, (time.time() - 700,) * 2)

    refused = begin(device, model, Upload_Length=str(2 * len(BODY)))

    assert code_of(refused) == (429, "too_many_uploads")
    assert offset(device, quiet) == 0


def test_a_finished_upload_counts_no_more(
    device: APIClient, model: FederatedModel, settings: Settings
) -> None:
    settings.FMA_MAX_UPLOADS = 1
    for _ in range(3):
        url = begun(device, model)
        send(device, url, BODY, 0)
        assert finish(device, url).status_code == 201


# A full disk


def test_what_has_no_room_is_refused_before_it_travels(
    device: APIClient, model: FederatedModel, monkeypatch: pytest.MonkeyPatch, storage: Path
) -> None:
    class Full:
        f_bavail, f_frsize = 1, 512

    monkeypatch.setattr("fma_django.storage.spool.os.statvfs", lambda folder: Full)
    answer = begin(device, model, Upload_Length="513")

    assert code_of(answer) == (507, "storage_full")
    assert int(answer.headers["Retry-After"]) > 0
    assert stored_files(storage) == []


def test_an_update_for_which_there_is_no_room_leaves_nothing(
    device: APIClient, model: FederatedModel, storage: Path
) -> None:
    body = encode({"w": np.zeros(2**21, np.float32)})
    url = f"{UPDATES}?federated_model={model.pk}"
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**22, hard))
    try:
        answer = device.generic("POST", url, body, SAFETENSORS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    assert code_of(answer) == (507, "storage_full")
    assert stored_files(storage) == []
    assert not ModelUpdate.objects.exists()
    assert device.generic("POST", url, body, SAFETENSORS).status_code == 201


def test_a_disk_that_fills_up_leaves_the_offset_true(
    device: APIClient, model: FederatedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = [20]
    real = os.pwrite

    def pwrite(fd: int, data: Any, at: int) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = real(fd, data[: room[0]], at)
        room[0] -= taken
        return taken

    url = begun(device, model)
    with monkeypatch.context() as patched:
        patched.setattr(part_file.os, "pwrite", pwrite)  # type: ignore[attr-defined]
        assert code_of(send(device, url, BODY, 0)) == (507, "storage_full")

    assert offset(device, url) == 20
    assert send(device, url, BODY[20:], 20).status_code == 204
    assert finish(device, url).json()["sha256"] == hashlib.sha256(BODY).hexdigest()


# Rates


@pytest.fixture
def _no_rates() -> Any:
    of_this_process.forget()
    yield
    of_this_process.forget()


@pytest.mark.usefixtures("_no_rates")
@pytest.mark.parametrize("kind", ["safetensors", "json"])
def test_an_update_that_comes_too_often_is_refused_unread(
    device: APIClient, model: FederatedModel, settings: Settings, kind: str
) -> None:
    settings.FMA_CLIENT_UPDATE_RATE = (1, 3600)

    def post(value: float) -> Any:
        if kind == "json":
            return device.post(UPDATES, {"federated_model": model.pk, "data": weights(value)})
        url = f"{UPDATES}?federated_model={model.pk}"
        return device.generic("POST", url, encode(arrays(value)), SAFETENSORS)

    assert post(1.0).status_code == 201
    refused = post(2.0)
    assert code_of(refused) == (429, "rate_exceeded")
    assert refused.headers["Retry-After"] == "3600"
    if kind == "safetensors":
        assert refused.wsgi_request.read() == encode(arrays(2.0))


@pytest.mark.parametrize("kind", ["safetensors", "json", "upload"])
def test_a_model_takes_no_larger_updates_than_its_policy_says(
    device: APIClient, model: FederatedModel, kind: str
) -> None:
    change_now(model, {"round_policy": {"max_update_bytes": 50}})
    if kind == "json":
        answer = device.post(UPDATES, {"federated_model": model.pk, "data": weights()})
    elif kind == "safetensors":
        answer = device.generic("POST", f"{UPDATES}?federated_model={model.pk}", BODY, SAFETENSORS)
    else:
        answer = begin(device, model)

    assert code_of(answer) == (413, "too_large")


@pytest.mark.usefixtures("_no_rates")
def test_a_size_that_nobody_takes_uses_up_nothing_and_asks_for_no_room(
    device: APIClient, model: FederatedModel, settings: Settings
) -> None:
    settings.FMA_MODEL_BYTE_RATE = (len(BODY), 3600)
    url = f"{UPDATES}?federated_model={model.pk}"

    huge = device.generic("POST", url, b"", SAFETENSORS, CONTENT_LENGTH=str(200 * 2**40))

    assert code_of(huge) == (413, "too_large")
    assert device.generic("POST", url, BODY, SAFETENSORS).status_code == 201


@pytest.mark.usefixtures("_no_rates")
def test_a_client_that_sends_too_often_is_told_when_to_come_again(
    device: APIClient, model: FederatedModel, settings: Settings
) -> None:
    settings.FMA_CLIENT_UPDATE_RATE = (2, 60)
    for _ in range(2):
        begun(device, model)
    refused = begin(device, model)

    assert code_of(refused) == (429, "rate_exceeded")
    assert 0 < int(refused.headers["Retry-After"]) <= 30
    begun(as_client(make_client(model)), model)


@pytest.mark.usefixtures("_no_rates")
@pytest.mark.parametrize(
    ("setting", "rate"), [("FMA_MODEL_UPDATE_RATE", (1, 60)), ("FMA_MODEL_BYTE_RATE", (len(BODY), 60))]
)
def test_a_model_takes_no_more_than_its_rate_of_all_clients_together(
    device: APIClient, model: FederatedModel, settings: Settings, setting: str, rate: tuple[int, int]
) -> None:
    setattr(settings, setting, rate)
    stranger, other = as_client(make_client(make_model())), as_client(make_client(model))
    assert begin(stranger, model).status_code == 403  # who is not registered uses nothing up
    url = begun(device, model)
    send(device, url, BODY, 0)

    refused = begin(other, model)
    assert code_of(refused) == (429, "rate_exceeded")
    assert setting in refused.json()["detail"]
    elsewhere = make_model()
    begun(as_client(make_client(elsewhere)), elsewhere)


@pytest.mark.usefixtures("_no_rates")
def test_bytes_of_an_upload_count_when_they_come_of_use_or_not(
    device: APIClient, model: FederatedModel, settings: Settings
) -> None:
    settings.FMA_MODEL_BYTE_RATE = (2 * len(BODY), 3600)
    for _ in range(4):
        given_up = begun(device, model)
        device.delete(given_up, headers=TUS)
    url = begun(device, model)

    for _ in range(2):
        answer = send(device, url, BODY, 0, Upload_Checksum=f"sha256 {_sha256(b'other')}")
        assert code_of(answer) == (460, "checksum_mismatch")

    assert code_of(send(device, url, BODY, 0)) == (429, "rate_exceeded")


@pytest.mark.usefixtures("_no_rates")
def test_what_is_compressed_counts_as_what_it_becomes(
    device: APIClient, model: FederatedModel, settings: Settings
) -> None:
    url, big = f"{UPDATES}?federated_model={model.pk}", encode({"w": np.zeros(10_000)})
    frame = b"".join(zstd.encoded([big]))
    coded = {"Content-Encoding": "zstd"}
    refused = device.generic("POST", url, frame, SAFETENSORS, headers=coded)
    assert code_of(refused) == (415, "unsupported_coding")
    assert device.generic("POST", url, big, SAFETENSORS).status_code == 201

    settings.FMA_MODEL_BYTE_RATE = (len(big), 3600)
    assert device.generic("POST", url, frame, SAFETENSORS, headers=coded).status_code == 201
    refused = device.generic("POST", url, frame, SAFETENSORS, headers=coded)
    assert code_of(refused) == (429, "rate_exceeded")


@pytest.mark.usefixtures("_no_rates")
def test_an_upload_that_is_begun_again_with_its_key_counts_once(
    device: APIClient, model: FederatedModel, settings: Settings
) -> None:
    settings.FMA_CLIENT_UPDATE_RATE = (1, 3600)
    urls = {begun(device, model, Idempotency_Key="k") for _ in range(3)}

    assert len(urls) == 1
    assert code_of(begin(device, model)) == (429, "rate_exceeded")


def test_an_upload_has_a_constant_number_of_queries(
    device: APIClient, model: FederatedModel, django_assert_max_num_queries: Any
) -> None:
    url = begun(device, model)
    with django_assert_max_num_queries(2):
        assert offset(device, url) == 0
    with django_assert_max_num_queries(6):
        send(device, url, BODY[:8], 0)


def begin_with(
    caller: APIClient, model: FederatedModel, body: object, query: str = "", **headers: str
) -> Any:
    said = {"Upload-Length": str(len(BODY)), **TUS, **_dashed(headers)}
    return caller.post(f"{UPLOADS}?federated_model={model.pk}{query}", body, "json", headers=said)


def test_facts_of_an_upload_may_come_in_its_body(device: APIClient, model: FederatedModel) -> None:
    metrics = {f"class {number}": number / 7 for number in range(2000)}  # 60 KB, as JSON

    begun = begin_with(device, model, {"metrics": metrics, "num_examples": 412})
    assert begun.status_code == 201, begun.content
    send(device, begun.headers["Location"], BODY, 0)
    update = finish(device, begun.headers["Location"]).json()

    assert (update["metrics"], update["num_examples"]) == (metrics, 412)


def test_metrics_of_an_upload_may_come_in_a_header(device: APIClient, model: FederatedModel) -> None:
    url = begun(device, model, "&num_examples=7", FMA_Metrics='{"loss":0.5}')
    send(device, url, BODY, 0)
    update = finish(device, url).json()

    assert (update["metrics"], update["num_examples"]) == ({"loss": 0.5}, 7)


@pytest.mark.parametrize("place", ["header", "query"])
def test_the_body_and_the_header_of_an_upload_share_its_facts(
    device: APIClient, model: FederatedModel, place: str
) -> None:
    query, headers = (
        ("", {"FMA_Metrics": '{"loss":0.5}'}) if place == "header" else ('&metrics={"loss":0.5}', {})
    )
    answer = begin_with(device, model, {"num_examples": 7}, query, **headers)
    assert answer.status_code == 201, answer.content
    send(device, answer.headers["Location"], BODY, 0)
    update = finish(device, answer.headers["Location"]).json()

    assert (update["metrics"], update["num_examples"]) == ({"loss": 0.5}, 7)
    assert begin_with(device, model, {"num_examples": 7}, "&metrics=[").json()["metrics"]


def test_the_keys_of_an_upload_hold_when_its_base_follows_from_another_round(
    alice: Any,
) -> None:
    model = make_model(alice, initial_model=weights(), optimiser={"name": "sgd"})
    ann = make_client(model)
    device = as_client(ann)
    assert join(model, ann.client).is_accepted
    first = begun(device, model, Idempotency_Key="begin")
    send(device, first, BODY, 0)
    made = finish(device, first, Idempotency_Key="finish").json()
    aggregate_now(model)
    assert join(model, ann.client).is_accepted

    assert begun(device, model, Idempotency_Key="begin") == first
    second = begun(device, model)
    send(device, second, BODY, 0)
    assert finish(device, second, Idempotency_Key="finish").json()["id"] == made["id"]


@pytest.mark.parametrize(
    ("body", "query", "field"),
    [
        ({"metrics": [1]}, "", "metrics"),
        ({"metrics": "x"}, "", "metrics"),
        ({"metric": {}}, "", "metric"),
        ({"num_examples": 0}, "", "num_examples"),
        ({"num_examples": 3}, "&num_examples=4", "num_examples"),
        ([1, 2], "", None),
    ],
)
def test_facts_in_the_body_of_an_upload_are_checked(
    device: APIClient, model: FederatedModel, body: object, query: str, field: str | None
) -> None:
    answer = begin_with(device, model, body, query)

    assert answer.status_code == 400, answer.content
    assert field is None or answer.json()[field]
