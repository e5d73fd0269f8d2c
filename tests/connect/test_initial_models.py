"""Large initial models go in parts: what a cut, a killed developer and a killed server cost."""

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from fma_connect import DeveloperClient, exceptions, uploads
from fma_connect.encoding import EncodedBody
from fma_core.arrays.codecs import safetensors
from tests.connect.conftest import FakeTime
from tests.connect.cutting_proxy import CuttingProxy
from tests.connect.scripted_server import ScriptedServer, json_reply
from tests.connect.test_uploads import ARRAYS, BODY, Uploads
from tests.servers.fma import REPOSITORY, FmaServer, StartFma, User

INITIAL = "api/v1/models/3/initial_model/"
ARTIFACT = {"id": 5, "version": "1.0.0"}


@pytest.fixture(autouse=True)
def _small_parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "processes" not in request.keywords:
        monkeypatch.setattr(uploads, "PART_BYTES", 40)
        monkeypatch.setattr("fma_connect.clients.developer_client.LEAST_BYTES", len(BODY))


@pytest.fixture
def developer(server: ScriptedServer, fake_time: FakeTime) -> Iterator[DeveloperClient]:
    with DeveloperClient(server.url, token="t0ken", **fake_time.injected) as developer:
        yield developer


def test_large_weights_go_in_parts(server: ScriptedServer, developer: DeveloperClient) -> None:
    scripted = Uploads(server)
    server.on("POST", INITIAL, json_reply(ARTIFACT, 201))

    assert developer.set_initial_model(3, ARRAYS) == ARTIFACT

    [begun] = server.calls("POST", "api/v1/uploads/")
    assert (begun.query, begun.body) == ({"initial_model": "3"}, b"")
    assert begun.headers["authorization"] == "Token t0ken"
    assert begun.headers["upload-length"] == str(len(BODY))
    assert scripted.arrived == BODY
    [finished] = server.calls("POST", INITIAL)
    assert (finished.query, finished.body) == ({"upload": "1"}, b"")


def test_smaller_weights_go_at_once(
    server: ScriptedServer, developer: DeveloperClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fma_connect.clients.developer_client.LEAST_BYTES", len(BODY) + 1)
    Uploads(server)
    server.on("POST", INITIAL, json_reply(ARTIFACT, 201))

    developer.set_initial_model(3, ARRAYS)

    assert server.calls("POST", "api/v1/uploads/") == []
    assert server.calls("POST", INITIAL)[0].body == BODY


@pytest.mark.parametrize("status", [403, 404])
def test_a_server_that_takes_no_parts_of_developers_gets_one_body(
    server: ScriptedServer, developer: DeveloperClient, status: int
) -> None:
    server.on("POST", "api/v1/uploads/", json_reply({"code": "permission_denied"}, status))
    server.on("POST", INITIAL, json_reply(ARTIFACT, 201))

    assert developer.set_initial_model(3, ARRAYS) == ARTIFACT

    assert server.calls("POST", INITIAL)[0].body == BODY


def test_what_arrived_before_a_cut_is_not_sent_again(
    server: ScriptedServer, developer: DeveloperClient
) -> None:
    scripted = Uploads(server)
    scripted.hiccups = [None, "cut", None, "cut"]
    server.on("POST", INITIAL, json_reply(ARTIFACT, 201))

    developer.set_initial_model(3, ARRAYS)

    assert scripted.arrived == BODY


def test_weights_that_the_model_may_not_have_are_told_and_given_up(
    server: ScriptedServer, developer: DeveloperClient
) -> None:
    Uploads(server)
    server.on("POST", INITIAL, json_reply({"code": "model_has_history", "detail": "it has weights"}, 409))

    with pytest.raises(exceptions.Conflict, match="it has weights"):
        developer.set_initial_model(3, ARRAYS)

    assert len(server.calls("DELETE", "api/v1/uploads/1/")) == 1


def test_the_same_weights_of_the_same_model_have_the_same_key(
    server: ScriptedServer, developer: DeveloperClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    Uploads(server)
    for model in (3, 4):
        server.on("POST", f"api/v1/models/{model}/initial_model/", json_reply(ARTIFACT, 201))
    with DeveloperClient(server.url, token="t0ken") as restarted:
        restarted.set_initial_model(3, ARRAYS)
    developer.set_initial_model(3, ARRAYS)
    developer.set_initial_model(4, ARRAYS)
    developer.set_initial_model(3, {"w": ARRAYS["w"] + 1})

    first, again, of_another, of_others = (
        seen.headers["idempotency-key"] for seen in server.calls("POST", "api/v1/uploads/")
    )
    assert first == again
    assert len({first, of_another, of_others}) == 3


def test_keys_that_are_used_up_are_followed_by_others_in_a_fixed_order(
    server: ScriptedServer, developer: DeveloperClient
) -> None:
    stand_in = Uploads(server)
    used_up = [json_reply({"code": "idempotency_key_expired"}, 409)] * 2
    server.on("POST", INITIAL, json_reply(ARTIFACT, 201))
    for _ in range(2):
        server.on("POST", "api/v1/uploads/", *used_up, stand_in._begin)
        developer.set_initial_model(3, ARRAYS)

    keys = [seen.headers["idempotency-key"] for seen in server.calls("POST", "api/v1/uploads/")]
    assert keys[:3] == keys[3:]
    assert len(set(keys)) == 3


# Real servers

# Killed as soon as it has sent so many bytes, if it is told a number.
SCRIPT = """
import os, signal, sys
import numpy as np
from fma_connect import DeveloperClient
from fma_connect.encoding import EncodedBody
pieces = EncodedBody.pieces
def until_killed(body, start=0):
    for piece in pieces(body, start):
        yield piece
        start += len(piece)
        if start > int(sys.argv[4]):
            os.kill(os.getpid(), signal.SIGKILL)
if len(sys.argv) > 4:
    EncodedBody.pieces = until_killed
with DeveloperClient(sys.argv[1], token=sys.argv[2]) as developer:
    w = np.random.default_rng(1).normal(size=8 * 2**20).astype(np.float32)
    developer.set_initial_model(int(sys.argv[3]), {"w": w})
"""


def large() -> dict[str, Any]:
    return {"w": np.random.default_rng(1).normal(size=8 * 2**20).astype(np.float32)}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def fma(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FmaServer]:
    with ExitStack() as stack:
        env = {}
        if request.param == "postgresql":
            server = request.getfixturevalue("postgres_server")
            env["FMA_DATABASE_URL"] = stack.enter_context(server.migrated_database())
        yield StartFma(tmp_path_factory.mktemp("initial"), stack)(env, worker=False)


@pytest.fixture
def proxy(fma: FmaServer) -> Iterator[CuttingProxy]:
    address = urlsplit(fma.base_url)
    assert address.hostname is not None
    assert address.port is not None
    size_bytes = len(safetensors.encode(large()))
    with closing(CuttingProxy(address.hostname, address.port, cut_at=size_bytes * 9 // 10)) as proxy:
        yield proxy


def new_model(fma: FmaServer) -> tuple[User, int]:
    ann = fma.install.add_user(f"ann{time.monotonic_ns()}")
    with DeveloperClient(fma.base_url, token=ann.token) as developer:
        return ann, developer.create_model("large")["id"]


def part_sizes(fma: FmaServer) -> list[int]:
    return [path.stat().st_size for path in fma.data_dir.rglob("*.part")]


@pytest.mark.processes
def test_a_cut_at_90_percent_costs_10_percent(fma: FmaServer, proxy: CuttingProxy) -> None:
    ann, model = new_model(fma)
    whole = safetensors.encode(large())
    with DeveloperClient(proxy.url, token=ann.token) as developer:
        artifact = developer.set_initial_model(model, large())
        again = developer.set_initial_model(model, large())

    assert proxy.cuts == 1
    assert artifact["sha256"] == hashlib.sha256(whole).hexdigest()
    assert again["id"] == artifact["id"]
    assert proxy.received_bytes <= 1.15 * len(whole)
    assert part_sizes(fma) == []


@pytest.mark.processes
def test_a_developer_who_was_killed_goes_on_where_the_line_was_cut(
    fma: FmaServer, proxy: CuttingProxy
) -> None:
    ann, model = new_model(fma)
    whole = safetensors.encode(large())
    command = [sys.executable, "-c", SCRIPT, proxy.url, ann.token, str(model)]
    killed = subprocess.run([*command, str(len(whole) // 2)], cwd=REPOSITORY, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    time.sleep(0.5)  # what was on its way arrives
    [before] = part_sizes(fma)
    assert len(whole) // 4 < before < len(whole)

    sent_before = proxy.received_bytes
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=120)

    assert proxy.received_bytes - sent_before <= len(whole) - before + 0.15 * len(whole)
    with DeveloperClient(fma.base_url, token=ann.token) as developer:
        [artifact] = developer.artifacts(model)
    assert artifact["sha256"] == hashlib.sha256(whole).hexdigest()
    assert part_sizes(fma) == []


@pytest.mark.processes
def test_a_server_that_is_killed_in_the_middle_keeps_what_arrived(
    fma: FmaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, model = new_model(fma)
    whole = safetensors.encode(large())
    port = fma.base_url.rpartition(":")[2]
    real, killed_at, sent = EncodedBody.pieces, list[int](), list[int]()

    def pieces(body: EncodedBody, start: int = 0) -> Iterator[bytes | memoryview]:
        for piece in real(body, start):
            yield piece
            sent.append(len(piece))
            start += len(piece)
            if start > len(whole) // 2 and not killed_at:
                fma.install.processes[-1].kill()
                killed_at.append(start)
                fma.install.start("web", "--data", str(fma.data_dir), "--port", port, log_name="web")

    monkeypatch.setattr(EncodedBody, "pieces", pieces)
    with DeveloperClient(fma.base_url, token=ann.token, timeout_s=90) as developer:
        artifact = developer.set_initial_model(model, large())

    assert killed_at
    assert artifact["sha256"] == hashlib.sha256(whole).hexdigest()
    assert sum(sent) <= 1.5 * len(whole)
    assert part_sizes(fma) == []
