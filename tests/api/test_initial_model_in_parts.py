"""Initial models in parts: by their developer alone, within the limits of uploads, and never an update."""

import hashlib
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from fma_core.arrays.codecs import zstd
from fma_core.arrays.codecs.safetensors import encode
from fma_django.experiments import changes
from fma_django.models import FederatedModel, ModelArtifact, ModelUpdate, Upload
from fma_django.rates import of_this_process
from fma_django.storage import part_file
from fma_django.updates.uploads import sweep_uploads
from tests.api.callers import API, SAFETENSORS, as_user, stored_files
from tests.api.test_uploads import BODY, TUS, UPLOADS, begun, code_of, offset, send
from tests.records import WEIGHTS, arrays, make_model, make_user, weights

IN_PARTS = "fma_django.experiments.initial_model_in_parts"

pytestmark = pytest.mark.django_db


def begin(caller: APIClient, model: FederatedModel | Any, query: str = "", **headers: str) -> Any:
    said = {"Upload-Length": str(len(BODY)), **TUS}
    said |= {name.replace("_", "-"): value for name, value in headers.items()}
    pk = model.pk if isinstance(model, FederatedModel) else model
    return caller.post(f"{UPLOADS}?initial_model={pk}{query}", headers=said)


def begun_by(caller: APIClient, model: FederatedModel, **headers: str) -> str:
    answer = begin(caller, model, **headers)
    assert answer.status_code == 201, answer.content
    return str(answer.headers["Location"])


def arrived(caller: APIClient, model: FederatedModel, body: bytes = BODY, **headers: str) -> str:
    url = begun_by(caller, model, Upload_Length=str(len(body)), **headers)
    assert send(caller, url, body, 0).status_code == 204
    return url


def finish(caller: APIClient, model: FederatedModel, url: str, **options: Any) -> Any:
    key = url.rstrip("/").rpartition("/")[2]
    return caller.post(f"{API}models/{model.pk}/initial_model/?upload={key}", **options)


def finish_as_update(caller: APIClient, url: str) -> Any:
    key = url.rstrip("/").rpartition("/")[2]
    return caller.post(f"{API}model_updates/?upload={key}")


@pytest.fixture
def other() -> APIClient:
    """Requests as a developer with a model of his own."""
    bob = make_user("bob")
    make_model(bob)
    return as_user(bob)


def test_parts_become_the_artifact_that_one_body_would_be(
    owner: APIClient, model: FederatedModel, storage: Path
) -> None:
    url = begun_by(owner, model)
    assert send(owner, url, BODY[:10], 0).headers["Upload-Offset"] == "10"
    assert offset(owner, url) == 10
    assert send(owner, url, BODY[10:], 10).status_code == 204

    answer = finish(owner, model, url)

    assert answer.status_code == 201, answer.content
    artifact = answer.json()
    assert (artifact["version"], artifact["sha256"]) == ("1.0.0", hashlib.sha256(BODY).hexdigest())
    model.refresh_from_db()
    assert model.current_artifact_id == artifact["id"]
    whole = make_model(model.developer)
    by_one_body = owner.generic("POST", f"{API}models/{whole.pk}/initial_model/", BODY, SAFETENSORS).json()
    assert by_one_body.keys() == artifact.keys()
    assert by_one_body["sha256"] == artifact["sha256"]
    assert not [name for name in stored_files(storage) if name.endswith(".part")]


@pytest.mark.parametrize("name", ["initial_modl", "initialmodel", "initial_models"])
def test_a_misspelt_initial_model_is_told_of(owner: APIClient, model: FederatedModel, name: str) -> None:
    answer = owner.post(f"{UPLOADS}?{name}={model.pk}", headers={"Upload-Length": str(len(BODY)), **TUS})
    assert answer.status_code == 400
    assert "did you mean 'initial_model'?" in answer.content.decode()


def test_an_upload_is_one_artifact_however_often_it_is_posted(
    owner: APIClient, model: FederatedModel
) -> None:
    url = arrived(owner, model)
    answers = [finish(owner, model, url) for _ in range(3)]
    answers.append(finish(owner, model, url, headers={"Idempotency-Key": "a"}))

    assert {answer.status_code for answer in answers} == {201}
    assert {answer.json()["id"] for answer in answers} == {ModelArtifact.objects.get().pk}
    assert offset(owner, url) == len(BODY)


def test_an_artifact_that_was_made_before_a_crash_is_found_again(
    owner: APIClient, model: FederatedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = arrived(owner, model)
    real = changes.set_initial_model

    def made_and_killed(*args: Any, **options: Any) -> Any:
        real(*args, **options)
        raise ConnectionAbortedError

    with monkeypatch.context() as patch:
        patch.setattr(f"{IN_PARTS}.set_initial_model", made_and_killed)
        assert finish(owner, model, url).status_code == 500
    assert Upload.objects.get().artifact_id is None

    answer = finish(owner, model, url)

    assert (answer.status_code, answer.json()["id"]) == (201, ModelArtifact.objects.get().pk)


# Callers


def test_the_owner_and_staff_begin_an_initial_model(owner: APIClient, model: FederatedModel) -> None:
    assert begin(owner, model).status_code == 201
    assert begin(as_user(make_user("sam", staff=True)), model).status_code == 201


def test_others_are_answered_as_by_initial_model_itself(
    device: APIClient, other: APIClient, model: FederatedModel
) -> None:
    unknown = APIClient(headers={"client-uuid": "0d3e1c4c-9c39-4d6f-8e9b-3ae8d2a7a3fd"})
    for caller in (other, unknown, APIClient()):
        refused = begin(caller, model)
        whole = caller.post(f"{API}models/{model.pk}/initial_model/", WEIGHTS, format="json")

        assert refused.status_code == whole.status_code
        assert refused.json() == whole.json()
    assert begin(other, model).status_code == 404
    assert begin(device, model).status_code == 403
    assert not Upload.objects.exists()


def test_a_model_that_does_not_exist_is_answered_as_one_of_somebody_else(
    owner: APIClient, other: APIClient, model: FederatedModel
) -> None:
    missing = begin(owner, model.pk + 1000)

    assert code_of(missing) == code_of(begin(other, model))


@pytest.mark.parametrize("given", ["0", "-1", "abc", "", str(2**70)])
def test_the_model_of_an_initial_model_is_a_number(owner: APIClient, given: str) -> None:
    answer = begin(owner, given)

    assert answer.status_code == 400
    assert "initial_model" in answer.json()["errors"]


def test_nobody_else_sees_adds_to_gives_up_or_finishes_an_upload(
    owner: APIClient, device: APIClient, other: APIClient, model: FederatedModel
) -> None:
    url = begun_by(owner, model)
    send(owner, url, BODY[:10], 0)

    for caller in (device, other, as_user(make_user("sam", staff=True))):
        assert code_of(caller.get(url, headers=TUS)) == (404, "unknown_upload")
        assert code_of(send(caller, url, BODY[10:], 10)) == (404, "unknown_upload")
        assert code_of(caller.delete(url, headers=TUS)) == (404, "unknown_upload")
        assert code_of(finish_as_update(caller, url)) == (404, "unknown_upload")
    send(owner, url, BODY[10:], 10)
    assert code_of(finish(as_user(User.objects.get(username="sam")), model, url)) == (404, "unknown_upload")
    assert code_of(finish(other, model, url)) == (404, "not_found")
    assert finish(device, model, url).status_code == 403
    assert finish(owner, model, url).status_code == 201


def test_a_developer_who_gave_a_model_away_goes_on_with_nothing(
    owner: APIClient, model: FederatedModel
) -> None:
    url = arrived(owner, model)
    FederatedModel.objects.filter(pk=model.pk).update(developer=make_user("eve"))

    assert code_of(owner.get(url, headers=TUS)) == (404, "unknown_upload")
    assert code_of(finish(owner, model, url)) == (404, "not_found")


def test_a_developer_who_lost_the_role_sends_no_further_part(
    owner: APIClient, alice: User, model: FederatedModel
) -> None:
    url = begun_by(owner, model)
    assert send(owner, url, BODY[:8], 0).status_code == 204

    alice.user_permissions.clear()

    assert code_of(send(owner, url, BODY[8:], 8)) == (403, "not_permitted")
    assert offset(owner, url) == 8
    assert owner.delete(url, headers=TUS).status_code == 204


def test_uploads_of_a_developer_who_has_left_are_swept(
    owner: APIClient, model: FederatedModel, storage: Path
) -> None:
    arrived(owner, model)
    User.objects.filter(pk=model.developer_id).update(is_active=False)

    assert sweep_uploads() == 1
    assert stored_files(storage) == []


# An update is no initial model, and an initial model is no update


def test_an_upload_of_an_update_is_not_finished_as_an_initial_model(
    owner: APIClient, device: APIClient, model: FederatedModel
) -> None:
    url = begun(device, model)
    send(device, url, BODY, 0)

    assert code_of(finish(owner, model, url)) == (404, "unknown_upload")
    assert finish(device, model, url).status_code == 403
    assert not ModelArtifact.objects.exists()
    assert finish_as_update(device, url).status_code == 201


def test_an_upload_of_an_initial_model_is_not_finished_as_an_update(
    owner: APIClient, device: APIClient, model: FederatedModel
) -> None:
    url = arrived(owner, model)

    for caller in (owner, device):
        assert code_of(finish_as_update(caller, url)) == (404, "unknown_upload")
    assert not ModelUpdate.objects.exists()
    assert finish(owner, model, url).status_code == 201


def test_an_upload_for_one_model_is_not_finished_at_another(owner: APIClient, model: FederatedModel) -> None:
    url = arrived(owner, model)
    second = make_model(model.developer)

    assert code_of(finish(owner, second, url)) == (404, "unknown_upload")
    assert finish(owner, model, url).status_code == 201


@pytest.mark.parametrize("query", ["&federated_model=1", "&num_examples=3", "&base_aggregate=1"])
def test_facts_of_an_update_beside_an_initial_model_are_refused(
    owner: APIClient, model: FederatedModel, query: str
) -> None:
    answer = begin(owner, model, query)

    assert answer.status_code == 400
    assert query[1:].partition("=")[0] in answer.json()["errors"]


def test_metrics_beside_an_initial_model_are_refused(owner: APIClient, model: FederatedModel) -> None:
    in_header = begin(owner, model, FMA_Metrics='{"loss": 1}')
    said = {"Upload-Length": "9", **TUS}
    url = f"{UPLOADS}?initial_model={model.pk}"
    in_body = owner.post(url, {"metrics": {"loss": 1}}, format="json", headers=said)
    as_list = owner.post(url, [1], format="json", headers=said)

    assert [answer.status_code for answer in (in_header, in_body, as_list)] == [400] * 3
    assert "metrics" in in_body.json()["errors"]
    assert owner.post(url, {}, format="json", headers=said).status_code == 201


@pytest.mark.parametrize("sent", [(b'{"w": [1.0]}', "application/json"), (BODY, SAFETENSORS)])
def test_a_body_beside_an_upload_is_refused(
    owner: APIClient, model: FederatedModel, sent: tuple[bytes, str]
) -> None:
    url = arrived(owner, model)
    key = url.split("/")[-2]

    answer = owner.generic("POST", f"{API}models/{model.pk}/initial_model/?upload={key}", *sent)

    assert answer.status_code == 400
    assert "upload" in answer.json()["errors"]
    assert not ModelArtifact.objects.exists()


@pytest.mark.parametrize("upload", ["", "nothing", "0d3e1c4c-9c39-4d6f-8e9b-3ae8d2a7a3fd"])
def test_an_upload_that_is_not_there_is_unknown(owner: APIClient, model: FederatedModel, upload: str) -> None:
    answer = owner.post(f"{API}models/{model.pk}/initial_model/?upload={upload}")

    assert code_of(answer) == (404, "unknown_upload")


# Refused as early as it can be


def test_a_model_with_weights_takes_no_upload(owner: APIClient, alice: Any) -> None:
    assert code_of(begin(owner, make_model(alice, initial_model=WEIGHTS))) == (409, "model_has_history")


def test_a_model_that_got_weights_meanwhile_takes_no_part(owner: APIClient, model: FederatedModel) -> None:
    complete, incomplete = arrived(owner, model), begun_by(owner, model)
    whole = f"{API}models/{model.pk}/initial_model/"
    assert owner.post(whole, weights(7.0), format="json").status_code == 201

    assert code_of(send(owner, incomplete, BODY, 0)) == (409, "model_has_history")
    assert offset(owner, incomplete) == 0
    assert code_of(finish(owner, model, complete)) == (409, "model_has_history")
    assert ModelArtifact.objects.count() == 1


@pytest.mark.parametrize("length", [1, 20, 2**40])
def test_a_size_that_no_body_of_the_spec_has_is_refused(
    owner: APIClient, alice: Any, settings: Settings, length: int
) -> None:
    settings.FMA_MAX_UPDATE_BYTES = 2**41
    model = make_model(alice, spec={"w": {"shape": [3], "dtype": "float64"}})

    assert code_of(begin(owner, model, Upload_Length=str(length))) == (422, "spec_mismatch")


def test_weights_of_another_spec_are_refused_and_the_upload_is_gone(
    owner: APIClient, alice: Any, storage: Path
) -> None:
    body = encode({"v": arrays(1.0)["w"]})
    named = {"w": {"shape": list(arrays(1.0)["w"].shape), "dtype": str(arrays(1.0)["w"].dtype)}}
    model = make_model(alice, spec=named)
    url = arrived(owner, model, body)

    assert finish(owner, model, url).status_code == 422
    assert code_of(finish(owner, model, url)) == (404, "unknown_upload")
    assert stored_files(storage) == []


def test_other_bytes_than_were_promised_are_refused(owner: APIClient, model: FederatedModel) -> None:
    url = arrived(owner, model, Repr_Digest=f"sha-256=:{'A' * 43}=:")

    answer = finish(owner, model, url)

    assert code_of(answer) == (400, "digest_mismatch")
    assert "Repr-Digest" in answer.json()["detail"]
    assert not ModelArtifact.objects.exists()


def test_an_upload_that_is_not_complete_is_no_initial_model(owner: APIClient, model: FederatedModel) -> None:
    url = begun_by(owner, model)
    send(owner, url, BODY[:10], 0)

    assert code_of(finish(owner, model, url)) == (409, "upload_incomplete")


def test_of_two_who_finish_at_once_one_waits(owner: APIClient, model: FederatedModel, storage: Path) -> None:
    url = arrived(owner, model)
    [part] = storage.rglob("*.part")
    with part_file.PartFile(part).held():
        answer = finish(owner, model, url)

    assert code_of(answer) == (429, "upload_busy")
    assert "initial model" in answer.json()["detail"]


def test_the_whole_may_be_compressed(owner: APIClient, model: FederatedModel) -> None:
    frame = b"".join(zstd.encoded([BODY]))
    url = arrived(owner, model, frame, Content_Encoding="zstd")

    assert finish(owner, model, url).json()["sha256"] == hashlib.sha256(BODY).hexdigest()


# Keys


def test_a_key_goes_on_with_the_upload_that_it_began(owner: APIClient, model: FederatedModel) -> None:
    url = begun_by(owner, model, Idempotency_Key="k")
    send(owner, url, BODY[:10], 0)

    again = begin(owner, model, Idempotency_Key="k")

    assert (again.headers["Location"], again.json()["offset"]) == (url, 10)
    other_model = make_model(model.developer)
    assert code_of(begin(owner, other_model, Idempotency_Key="k")) == (422, "idempotency_key_reused")
    sam = as_user(make_user("sam", staff=True))
    assert begun_by(sam, model, Idempotency_Key="k") != url


def test_a_key_finds_its_upload_when_it_is_an_artifact_already(
    owner: APIClient, model: FederatedModel
) -> None:
    url = arrived(owner, model, Idempotency_Key="k")
    made = finish(owner, model, url).json()

    again = begin(owner, model, Idempotency_Key="k")

    assert (again.status_code, again.json()["offset"]) == (201, len(BODY))
    assert finish(owner, model, again.headers["Location"]).json()["id"] == made["id"]


def test_a_key_is_one_artifact_also_of_two_uploads(owner: APIClient, model: FederatedModel) -> None:
    first, second = arrived(owner, model), arrived(owner, model)
    answers = [finish(owner, model, url, headers={"Idempotency-Key": "k"}) for url in (first, second)]

    assert [answer.status_code for answer in answers] == [201, 201]
    assert ModelArtifact.objects.count() == 1


# Limits


@pytest.mark.parametrize("bound", ["FMA_MAX_UPLOADS", "FMA_MAX_UPLOADING_BYTES"])
def test_a_developer_begins_no_more_than_a_client_may(
    owner: APIClient,
    device: APIClient,
    other: APIClient,
    model: FederatedModel,
    storage: Path,
    settings: Settings,
    bound: str,
    django_capture_on_commit_callbacks: Any,
) -> None:
    setattr(settings, bound, {"FMA_MAX_UPLOADS": 2, "FMA_MAX_UPLOADING_BYTES": 2 * len(BODY)}[bound])
    quiet, busy = begun_by(owner, model), begun_by(owner, make_model(model.developer))
    refused = begin(owner, model)
    assert code_of(refused) == (429, "too_many_uploads")
    assert refused.json()["detail"].startswith("this developer has begun 2 uploads")
    assert int(refused.headers["Retry-After"]) > 0
    begun(device, model)  # others have bounds of their own
    begun_by(other, FederatedModel.objects.get(developer__username="bob"))

    [part] = [path for path in storage.rglob("*.part") if path.stem == quiet.split("/")[-2].replace("-", "")]
    os.utime(part, (time.time() - 700,) * 2)
    with django_capture_on_commit_callbacks(execute=True):
        begun_by(owner, model)

    assert not part.exists()
    assert owner.head(quiet, headers=TUS).status_code == 404
    assert offset(owner, busy) == 0


def test_a_finished_upload_counts_no_more(owner: APIClient, alice: Any, settings: Settings) -> None:
    settings.FMA_MAX_UPLOADS = 1
    for _ in range(3):
        model = make_model(alice)
        assert finish(owner, model, arrived(owner, model)).status_code == 201


def test_an_upload_expires(owner: APIClient, model: FederatedModel, storage: Path) -> None:
    url = arrived(owner, model)
    Upload.objects.update(expires_on=timezone.now() - timedelta(seconds=1))

    assert code_of(finish(owner, model, url)) == (404, "unknown_upload")
    assert sweep_uploads() == 1
    assert stored_files(storage) == []


def test_more_than_weights_may_have_is_refused(
    owner: APIClient, model: FederatedModel, settings: Settings
) -> None:
    settings.FMA_MAX_UPDATE_BYTES = len(BODY) - 1

    assert code_of(begin(owner, model)) == (413, "too_large")


def test_what_has_no_room_is_refused_before_it_travels(
    owner: APIClient, model: FederatedModel, monkeypatch: pytest.MonkeyPatch, storage: Path
) -> None:
    class Full:
        f_bavail, f_frsize = 1, 2 * len(BODY) - 1

    monkeypatch.setattr("fma_django.storage.spool.os.statvfs", lambda folder: Full)

    assert code_of(begin(owner, model)) == (507, "storage_full")
    assert stored_files(storage) == []


def test_rates_of_clients_are_not_used_up(
    owner: APIClient, device: APIClient, model: FederatedModel, settings: Settings
) -> None:
    of_this_process.forget()
    settings.FMA_MODEL_UPDATE_RATE = (1, 3600.0)
    settings.FMA_MODEL_BYTE_RATE = (len(BODY), 3600.0)

    arrived(owner, model)

    assert begun(device, model)
    of_this_process.forget()


@pytest.mark.parametrize("senders", [{"client": True, "developer": True}, {}])
def test_an_upload_has_one_sender(model: FederatedModel, ann: Any, senders: dict[str, bool]) -> None:
    row = {"client": ann.client, "developer": model.developer}
    with pytest.raises(IntegrityError), transaction.atomic():
        Upload.objects.create(
            federated_model=model,
            size_bytes=1,
            expires_on=timezone.now(),
            **{name: row[name] for name in senders},
        )


def test_an_upload_has_a_constant_number_of_queries(
    owner: APIClient, model: FederatedModel, django_assert_num_queries: Any
) -> None:
    with django_assert_num_queries(10):
        url = begun_by(owner, model)
    with django_assert_num_queries(3):
        assert offset(owner, url) == 0
    with django_assert_num_queries(5):
        send(owner, url, BODY[:8], 0)
