"""Large updates go in parts: what a cut costs, and what becomes of an upload that is refused, lost or unknown."""

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from fma_connect import Client, DeveloperClient, exceptions, uploads
from fma_core.arrays.codecs import safetensors
from tests.connect.conftest import FakeTime
from tests.connect.cutting_proxy import CuttingProxy
from tests.connect.scripted_server import DROP, Reply, ScriptedServer, Seen, json_reply
from tests.servers.fma import FmaServer, StartFma

ARRAYS = {"w": np.arange(12, dtype=np.float32)}
BODY = safetensors.encode(ARRAYS)
UPDATE = {"id": 7, "round": 1}


class Uploads:
    """The uploads of a scripted server, which keeps the bytes that arrive, or fewer when it is told to."""

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        self.begun = 0
        self.arrived = b""
        self.hiccups: list[Any] = []
        server.on("POST", "api/v1/models/3/register_client/", json_reply({"uuid": "c", "id": "c"}))
        server.on("POST", "api/v1/uploads/", self._begin)

    def _begin(self, seen: Seen) -> Reply:
        self.begun += 1
        self.arrived = b""
        path = f"api/v1/uploads/{self.begun}/"
        self.server.on("HEAD", path, lambda _: Reply(headers={"Upload-Offset": str(len(self.arrived))}))
        self.server.on("PATCH", path, self._add)
        self.server.on("DELETE", path, Reply(204))
        return json_reply({"id": str(self.begun)}, 201)

    def _add(self, seen: Seen) -> Reply:
        hiccup = self.hiccups.pop(0) if self.hiccups else None
        if isinstance(hiccup, Reply) and hiccup is not DROP:
            return hiccup
        assert int(seen.headers["upload-offset"]) == len(self.arrived)
        self.arrived += seen.body[: 5 if hiccup is not None else None]
        if hiccup is not None:
            return DROP
        return Reply(204, headers={"Upload-Offset": str(len(self.arrived))})


@pytest.fixture
def client(server: ScriptedServer, fake_time: FakeTime, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(uploads, "PART_BYTES", 40)
    monkeypatch.setattr("fma_connect.clients.client.LEAST_BYTES", len(BODY))
    with Client(server.url, 3, credential_file=None, telemetry=False, **fake_time.injected) as client:
        yield client


def test_a_large_update_goes_in_parts(server: ScriptedServer, client: Client) -> None:
    scripted = Uploads(server)
    server.on("POST", "api/v1/model_updates/", json_reply(UPDATE, 201))

    assert client.push(ARRAYS, num_examples=4) == UPDATE

    [begun] = server.calls("POST", "api/v1/uploads/")
    assert begun.query == {"federated_model": "3", "num_examples": "4"}
    assert begun.headers["upload-length"] == str(len(BODY))
    assert begun.headers["repr-digest"].startswith("sha-256=:")
    assert {len(seen.body) for seen in server.calls("PATCH", "api/v1/uploads/1/")} <= {40, len(BODY) % 40}
    assert scripted.arrived == BODY
    [finished] = server.calls("POST", "api/v1/model_updates/")
    assert (finished.query, finished.body) == ({"upload": "1"}, b"")


def test_a_smaller_update_goes_at_once(
    server: ScriptedServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fma_connect.clients.client.LEAST_BYTES", len(BODY) + 1)
    Uploads(server)
    server.on("POST", "api/v1/model_updates/", json_reply(UPDATE, 201))

    client.push(ARRAYS)

    assert server.calls("POST", "api/v1/uploads/") == []


def test_what_arrived_before_a_cut_is_not_sent_again(server: ScriptedServer, client: Client) -> None:
    scripted = Uploads(server)
    scripted.hiccups = [None, DROP, None, DROP]
    server.on("POST", "api/v1/model_updates/", json_reply(UPDATE, 201))

    client.push(ARRAYS)

    assert scripted.arrived == BODY
    assert len(server.calls("HEAD", "api/v1/uploads/1/")) == 2


@pytest.mark.parametrize(
    ("status", "code"), [(409, "idempotency_key_expired"), (422, "idempotency_key_reused")]
)
def test_an_upload_whose_key_is_used_up_is_begun_with_another(
    server: ScriptedServer, client: Client, status: int, code: str
) -> None:
    stand_in = Uploads(server)
    server.on("POST", "api/v1/uploads/", json_reply({"code": code}, status), stand_in._begin)
    server.on("POST", "api/v1/model_updates/", json_reply(UPDATE, 201))

    assert client.push(ARRAYS) == UPDATE

    assert stand_in.arrived == BODY


def test_an_offset_that_moved_is_asked_for(server: ScriptedServer, client: Client) -> None:
    scripted = Uploads(server)
    scripted.hiccups = [None, json_reply({"code": "wrong_offset"}, 409)]
    server.on("POST", "api/v1/model_updates/", json_reply(UPDATE, 201))

    client.push(ARRAYS)

    assert scripted.arrived == BODY


def test_an_upload_that_is_lost_is_begun_again(server: ScriptedServer, client: Client) -> None:
    scripted = Uploads(server)
    scripted.hiccups = [None, json_reply({"code": "not_found"}, 404)]
    server.on("POST", "api/v1/model_updates/", json_reply(UPDATE, 201))

    client.push(ARRAYS)

    assert (scripted.begun, scripted.arrived) == (2, BODY)
    keys = {seen.headers["idempotency-key"] for seen in server.calls("POST", "api/v1/uploads/")}
    assert len(keys) == 2


def test_what_ran_out_of_time_is_gone_on_with_when_it_is_pushed_again(
    server: ScriptedServer, client: Client, fake_time: FakeTime
) -> None:
    scripted = Uploads(server)
    scripted.hiccups = [None, *[json_reply({"code": "storage_full"}, 507, Retry_After="90")] * 2]
    server.on("POST", "api/v1/model_updates/", json_reply(UPDATE, 201))
    for _ in range(2):
        with pytest.raises(exceptions.ServerFailed):
            client.push(ARRAYS)

    client.push(ARRAYS)

    assert (scripted.begun, scripted.arrived) == (1, BODY)


def test_what_ran_out_of_time_is_given_up_for_another_update(
    server: ScriptedServer, client: Client, fake_time: FakeTime
) -> None:
    scripted = Uploads(server)
    scripted.hiccups = [None, json_reply({"code": "storage_full"}, 507, Retry_After="90")]
    server.on("POST", "api/v1/model_updates/", json_reply(UPDATE, 201))
    with pytest.raises(exceptions.ServerFailed):
        client.push(ARRAYS)

    client.push({"w": ARRAYS["w"] + 1})

    assert scripted.begun == 2
    assert len(server.calls("DELETE", "api/v1/uploads/1/")) == 1


def test_an_upload_that_is_refused_is_given_up(server: ScriptedServer, client: Client) -> None:
    scripted = Uploads(server)
    scripted.hiccups = [None, json_reply({"code": "late_update"}, 409)]

    with pytest.raises(exceptions.LateUpdate):
        client.push(ARRAYS)

    assert len(server.calls("DELETE", "api/v1/uploads/1/")) == 1


def test_a_server_without_uploads_gets_one_body(server: ScriptedServer, client: Client) -> None:
    server.on("POST", "api/v1/models/3/register_client/", json_reply({"uuid": "c", "id": "c"}))
    server.on("POST", "api/v1/model_updates/", json_reply(UPDATE, 201))

    client.push(ARRAYS)
    client.push(ARRAYS)

    assert [seen.body for seen in server.calls("POST", "api/v1/model_updates/")] == [BODY, BODY]
    assert len(server.calls("POST", "api/v1/uploads/")) == 1  # it is not asked again


def test_a_rate_that_is_exceeded_is_waited_for(
    server: ScriptedServer, client: Client, fake_time: FakeTime
) -> None:
    scripted = Uploads(server)
    too_soon = json_reply({"code": "rate_exceeded"}, 429, Retry_After="17")
    server.on("POST", "api/v1/uploads/", too_soon, scripted._begin)
    server.on("POST", "api/v1/model_updates/", json_reply(UPDATE, 201))

    client.push(ARRAYS)

    assert fake_time.sleeps[0] >= 17


@pytest.fixture(scope="module")
def fma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FmaServer]:
    with ExitStack() as stack:
        yield StartFma(tmp_path_factory.mktemp("uploads"), stack)(worker=False)


@pytest.mark.processes
def test_a_cut_at_90_percent_costs_10_percent(fma: FmaServer, tmp_path: Path) -> None:
    arrays = {"w": np.random.default_rng(1).normal(size=8 * 2**20).astype(np.float32)}
    whole = safetensors.encode(arrays)
    address = urlsplit(fma.base_url)
    assert address.hostname is not None
    assert address.port is not None
    with closing(CuttingProxy(address.hostname, address.port, cut_at=len(whole) * 9 // 10)) as proxy:
        with DeveloperClient(fma.base_url, token=fma.install.add_user("ann").token) as developer:
            model = developer.create_model("large")["id"]
        with Client(proxy.url, model, credential_file=tmp_path / "client.json", telemetry=False) as client:
            client.register()
            update = client.push(arrays)

    assert proxy.cuts == 1
    assert update["sha256"] == hashlib.sha256(whole).hexdigest()
    assert proxy.received_bytes <= 1.15 * len(whole)
    assert not list(fma.data_dir.rglob("*.part"))


def finished(http: httpx.Client, key: str, number: int) -> httpx.Response:
    return http.post("model_updates/", params={"upload": key}, headers={"Idempotency-Key": f"k{number}"})


@pytest.mark.processes
def test_of_parts_and_ends_that_come_at_once_each_counts_once(fma: FmaServer) -> None:
    body = safetensors.encode({"w": np.arange(2**20, dtype=np.float32)})
    half = len(body) // 2
    with DeveloperClient(fma.base_url, token=fma.install.add_user("bea").token) as developer:
        model = developer.create_model("at once")["id"]
        with httpx.Client(base_url=f"{fma.base_url}/api/v1/", trust_env=False, timeout=30) as http:
            http.headers["CLIENT-UUID"] = http.post(f"models/{model}/register_client/").json()["uuid"]
            http.headers["Tus-Resumable"] = "1.0.0"
            url, key = begun(http, model, len(body))
            with ThreadPoolExecutor(6) as pool:
                for at, part in ((0, body[:half]), (half, body[half:])):
                    answers = list(pool.map(partial(patched, http, url, at), [part] * 4))
                    assert answers.count(204) == 1, answers
                    assert set(answers) <= {204, 409, 413}
                finish = partial(finished, http, key)
                at_once = list(pool.map(finish, range(6)))
            time.sleep(1)  # as Retry-After says
            afterwards = [finish(number) for number in range(6)]
        # One request makes the update; whoever comes meanwhile asks again for that one.
        assert {answer.status_code for answer in at_once} <= {201, 429}, [answer.text for answer in at_once]
        assert {answer.json()["code"] for answer in at_once if answer.status_code == 429} <= {"upload_busy"}
        made = [answer for answer in at_once if answer.status_code == 201]
        assert made
        assert {answer.status_code for answer in afterwards} == {201}
        assert len({answer.json()["id"] for answer in (*made, *afterwards)}) == 1
        [update] = developer.updates(model)
    assert update["sha256"] == hashlib.sha256(body).hexdigest()


@pytest.mark.processes
def test_a_server_that_is_killed_in_the_middle_keeps_what_arrived(fma: FmaServer) -> None:
    body = safetensors.encode({"w": np.arange(2**22, dtype=np.float32)})
    with DeveloperClient(fma.base_url, token=fma.install.add_user("cid").token) as developer:
        model = developer.create_model("killed")["id"]

    def cut() -> Iterator[bytes]:
        yield body[: 2**23]
        [part] = fma.data_dir.rglob("*.part")
        fma.process.wait_until(lambda: part.stat().st_size > 2**22, "some of it is there", limit_s=20)
        fma.process.kill()
        yield body[2**23 :]

    with httpx.Client(base_url=f"{fma.base_url}/api/v1/", trust_env=False, timeout=30) as http:
        http.headers["CLIENT-UUID"] = http.post(f"models/{model}/register_client/").json()["uuid"]
        http.headers["Tus-Resumable"] = "1.0.0"
        url, key = begun(http, model, len(body))
        with pytest.raises(httpx.TransportError):
            http.patch(url, headers=part_headers(0, len(body)), content=cut())
        port = fma.base_url.rpartition(":")[2]
        restarted = fma.install.start("web", "--data", str(fma.data_dir), "--port", port, log_name="web")
        restarted.wait_until(lambda: fma.status_of("/healthz") == 200, "/healthz answers 200", limit_s=60)
        offset = int(http.head(url).headers["Upload-Offset"])
        assert 2**22 < offset <= 2**23
        assert patched(http, url, offset, body[offset:]) == 204
        update = http.post("model_updates/", params={"upload": key}).json()
    assert update["sha256"] == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("step", ["PATCH", "POST"])
def test_an_upload_on_another_machine_is_found_by_asking_again(
    server: ScriptedServer, client: Client, step: str
) -> None:
    scripted = Uploads(server)
    elsewhere = json_reply({"code": "upload_elsewhere"}, 409)
    if step == "PATCH":
        scripted.hiccups = [elsewhere, elsewhere, None, elsewhere]
        server.on("POST", "api/v1/model_updates/", json_reply(UPDATE, 201))
    else:
        server.on("POST", "api/v1/model_updates/", elsewhere, elsewhere, json_reply(UPDATE, 201))

    assert client.push(ARRAYS) == UPDATE

    assert (scripted.begun, scripted.arrived) == (1, BODY)
    assert server.calls("DELETE", "api/v1/uploads/1/") == []


class TwoMachines(Uploads):
    """They take turns, whatever comes, and the first has the parts."""

    def __init__(self, server: ScriptedServer) -> None:
        super().__init__(server)
        self.turns = 0

    def _begin(self, seen: Seen) -> Reply:
        begun = super()._begin(seen)
        self.turns = 1
        for method in ("HEAD", "PATCH"):
            path = f"api/v1/uploads/{self.begun}/"
            self.server.on(method, path, partial(self._in_turn, path, method))
        self.server.on("POST", "api/v1/model_updates/", partial(self._in_turn, "", "POST"))
        return begun

    def _in_turn(self, path: str, method: str, seen: Seen) -> Reply:
        self.turns += 1
        if self.turns % 2 == 0:
            return Reply(409) if method == "HEAD" else json_reply({"code": "upload_elsewhere"}, 409)
        if method == "POST":
            return json_reply(UPDATE, 201)
        if method == "HEAD":
            return Reply(headers={"Upload-Offset": str(len(self.arrived))})
        return self._add(seen)


@pytest.mark.parametrize("hiccups", [[], [DROP], [None, DROP], [DROP, DROP]])
def test_the_machine_of_an_upload_is_found_when_two_take_turns(
    server: ScriptedServer, client: Client, hiccups: list[Any]
) -> None:
    scripted = TwoMachines(server)
    scripted.hiccups = hiccups

    assert client.push(ARRAYS) == UPDATE

    assert (scripted.begun, scripted.arrived) == (1, BODY)


@pytest.mark.parametrize("step", ["PATCH", "POST"])
def test_an_upload_whose_machine_is_gone_is_begun_again(
    server: ScriptedServer, client: Client, step: str
) -> None:
    scripted = Uploads(server)
    elsewhere = json_reply({"code": "upload_elsewhere"}, 409)
    answers = [elsewhere] * uploads.MOST_MACHINES
    if step == "PATCH":
        scripted.hiccups = [None, *answers]
    server.on(
        "POST",
        "api/v1/model_updates/",
        *(answers if step == "POST" else []),
        json_reply(UPDATE, 201),
    )

    assert client.push(ARRAYS) == UPDATE

    assert (scripted.begun, scripted.arrived) == (2, BODY)


def begun(http: httpx.Client, model: int, size_bytes: int) -> tuple[str, str]:
    answer = http.post(
        "uploads/", params={"federated_model": model}, headers={"Upload-Length": str(size_bytes)}
    )
    assert answer.status_code == 201, answer.text
    return f"uploads/{answer.json()['id']}/", answer.json()["id"]


def patched(http: httpx.Client, url: str, at: int, part: bytes) -> int:
    return http.patch(url, headers=part_headers(at, len(part)), content=part).status_code


def part_headers(at: int, size_bytes: int) -> dict[str, str]:
    return {
        "Content-Type": "application/offset+octet-stream",
        "Upload-Offset": str(at),
        "Content-Length": str(size_bytes),
    }
