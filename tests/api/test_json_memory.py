"""Large JSON: refused before it is parsed, parsed within one budget of memory, and written piece by piece."""

import io
import json
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from fma_core.arrays.codecs import json_bytes
from fma_core.arrays.codecs.safetensors import Limits
from fma_core.errors import FMAError
from fma_django.errors import MemoryInUse
from fma_django.models import FederatedModel
from fma_django.record import json_process
from fma_django.record.json_memory import memory, reserved
from fma_django.record.json_process import LargeJson
from fma_django.record.json_weights import Wanted
from tests.api.callers import API, as_client
from tests.records import aggregate_now, make_client, make_model, send_update

UPDATES = f"{API}model_updates/"
LARGE = {"w": [[0.5] * 100_000]}


def body_for(model: FederatedModel, **changes: Any) -> bytes:
    return json.dumps({"federated_model": model.pk, "data": LARGE, **changes}).encode()


class Unread(io.BytesIO):
    """A body of which no more than its beginning may be read."""

    def read(self, size: int | None = -1) -> bytes:
        assert size in range(1025), f"{size} bytes were asked for"
        return super().read(size)


def post_unread(caller: APIClient, body: bytes) -> Any:
    return caller.generic("POST", UPDATES, body, "application/json", **{"wsgi.input": Unread(body)})


@pytest.mark.django_db
def test_a_large_body_of_a_stranger_is_not_read(model: FederatedModel) -> None:
    assert post_unread(as_client(make_client()), body_for(model)).json()["code"] == "not_registered"


@pytest.mark.django_db
def test_a_large_body_for_no_model_is_not_read(device: APIClient, model: FederatedModel) -> None:
    model.pk += 1000
    assert post_unread(device, body_for(model)).json()["code"] == "unknown_model"


@pytest.mark.django_db
def test_a_large_body_for_an_experiment_that_has_ended_is_not_read(
    owner: APIClient, device: APIClient, model: FederatedModel
) -> None:
    assert owner.post(f"{API}models/{model.pk}/cancel/").status_code == 200

    assert post_unread(device, body_for(model)).json()["code"] == "experiment_ended"


@pytest.mark.django_db
def test_a_large_body_beyond_the_rate_is_not_read_and_one_within_it_is_counted_once(
    device: APIClient, model: FederatedModel, settings: Settings
) -> None:
    settings.FMA_CLIENT_UPDATE_RATE = (2, 3600)
    for _ in range(2):
        assert device.generic("POST", UPDATES, body_for(model), "application/json").status_code == 201

    refused = post_unread(device, body_for(model))

    assert (refused.status_code, refused.json()["code"]) == (429, "rate_exceeded")


@pytest.mark.django_db
def test_members_in_another_order_are_taken_all_the_same(device: APIClient, model: FederatedModel) -> None:
    body = json.dumps({"data": LARGE, "num_examples": 3, "federated_model": model.pk}).encode()

    assert device.generic("POST", UPDATES, body, "application/json").json()["num_examples"] == 3


@pytest.mark.django_db
def test_json_that_needs_more_than_the_budget_is_413_before_it_is_parsed(
    device: APIClient, model: FederatedModel, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.FMA_JSON_MEMORY_BYTES = 2**21
    monkeypatch.setattr(LargeJson, "parse", lambda *_, **__: pytest.fail("it was parsed"))
    body = b'{"federated_model": %d, "data": [%s[]]}' % (model.pk, b"[]," * 50_000)

    answer = device.generic("POST", UPDATES, body, "application/json")

    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert "FMA_JSON_MEMORY_BYTES" in answer.json()["detail"]
    assert memory.reserved_bytes == 0


@pytest.mark.django_db
def test_json_waits_for_memory_that_others_hold(
    device: APIClient, model: FederatedModel, settings: Settings
) -> None:
    settings.FMA_JSON_MEMORY_BYTES = 2**26
    with reserved(2**26 - 1000):
        refused = device.generic("POST", UPDATES, body_for(model), "application/json")
        small = device.post(UPDATES, {"federated_model": model.pk, "data": [1.0]})

    assert (refused.status_code, refused.json()["code"]) == (503, "memory_in_use")
    assert int(refused["Retry-After"]) > 0
    assert small.status_code == 201
    assert memory.reserved_bytes == 0


def test_the_budget_holds_for_all_who_ask_at_once(settings: Settings) -> None:
    settings.FMA_JSON_MEMORY_BYTES = 1000
    at_once, most = threading.Barrier(200), 0
    lock = threading.Lock()

    def ask(_: int) -> bool:
        nonlocal most
        at_once.wait()
        try:
            with reserved(150):
                with lock:
                    most = max(most, memory.reserved_bytes)
                threading.Event().wait(0.05)
        except MemoryInUse:
            return False
        return True

    with ThreadPoolExecutor(200) as pool:
        served = list(pool.map(ask, range(200)))

    assert 6 <= sum(served) < 200
    assert most <= 1000
    assert memory.reserved_bytes == 0


HOSTILE = {
    "numbers": b"0.5,",
    "short texts of long numbers": b"1e15,",
    "empty lists": b"[],",
    "lists": b"[0],",
    "pairs": b"[0.5,0.5],",
    "objects": b"{},",
    "members": b'{"":0},',
    "texts": b'"ab",',
    "wide texts": '"Ж",'.encode(),
    "nested": b"[[[0]]],",
    "long texts that one character makes wide": f'"{"x" * 10_000}\U0001f600",'.encode(),
    "long texts that an escape makes wide": b'"%s\\ud83d\\ude00",' % (b"x" * 10_000),
}
MEASURE = """
import sys
from fma_core.arrays.codecs import json_bytes, json_layouts
from fma_core.errors import FMAError
unit = bytes.fromhex(sys.argv[1])
body = b"[" + unit * (4 * 2**20 // len(unit)) + unit[:-1] + b"]"
def memory(name):
    with open("/proc/self/status") as file:
        return int(next(line for line in file if line.startswith(name)).split()[1]) * 1024
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = memory("VmRSS")
try:
    json_layouts.arrays_of(json_bytes.loads(body))
except FMAError:
    pass
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("what", HOSTILE)
def test_no_json_takes_more_memory_than_was_reserved(what: str) -> None:
    unit = HOSTILE[what]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, unit.hex()], capture_output=True, text=True, check=True
    )
    body = b"[" + unit * (4 * 2**20 // len(unit)) + unit[:-1] + b"]"

    assert int(done.stdout) < json_bytes.parsed_bytes(body) + 8 * 2**20


def memory_of(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("member", [None, "weights", "others"])
@pytest.mark.parametrize("what", HOSTILE)
def test_the_process_of_large_json_takes_no_more_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, member: str | None
) -> None:
    monkeypatch.setattr(
        json_process, "KEPT_BYTES", 2**40
    )  # it is asked for its memory when the body has gone
    unit = HOSTILE[what]
    value = b"[" + unit * (4 * 2**20 // len(unit)) + unit[:-1] + b"]"
    text = value if member is None else b'{"%s": %s}' % (member.encode(), value)
    wanted = Wanted(spec=None, layout=None, schema=None, limits=Limits(), field="data")
    LargeJson([b"[]"], 2).close()
    process = json_process._place._process
    assert process is not None
    pid = process._process.pid
    before = memory_of(pid, "VmRSS")
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    large = LargeJson([text[at : at + 2**17] for at in range(0, len(text), 2**17)], len(text))
    with suppress(FMAError):
        large.parse(weights="weights" if member else None)
        large.fingerprint()
        large.write(tmp_path / "weights", wanted)
    peak = memory_of(pid, "VmHWM") - before
    needs = large.needs_bytes
    large.close()
    process.end()

    assert len(text) < peak < needs + 8 * 2**20


@pytest.mark.django_db
def test_large_weights_are_written_as_json_in_bounded_memory(owner: APIClient, alice: Any) -> None:
    rows = np.random.default_rng(1).standard_normal((1000, 1000))
    model = make_model(alice, initial_model={"b": [0.0], "w": rows.tolist()})
    artifact = model.current_artifact
    assert artifact is not None
    for path in (f"model_artifacts/{artifact.pk}/weights/", f"models/{model.pk}/get_latest_model/"):
        answer: Any = owner.get(f"{API}{path}")
        tracemalloc.start()
        sizes = [len(piece) for piece in answer.streaming_content]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

        assert sum(sizes) > 18_000_000
        assert peak < 8 * 2**20
    again: Any = owner.get(f"{API}{path}")
    text = b"".join(again.streaming_content)
    assert np.array_equal(json.loads(text)["values"]["w"], rows)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.django_db
def test_the_file_of_an_answer_is_closed_also_when_nobody_reads_on(owner: APIClient, alice: Any) -> None:
    def open_files() -> list[str]:
        found = (str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())
        return [path for path in found if "/blobs/" in path]

    model = make_model(alice, initial_model={"w": [0.5] * 300_000})
    url = f"{API}models/{model.pk}/get_latest_model/"
    whole: Any = owner.get(url)
    assert sum(map(len, whole.streaming_content)) > 10**6
    assert open_files() == []
    part: Any = owner.get(url)
    pieces = iter(part.streaming_content)
    assert next(pieces)
    assert next(pieces)
    assert len(open_files()) == 1
    part.close()
    assert open_files() == []


@pytest.mark.django_db
def test_an_aggregate_with_large_weights_is_one_object(owner: APIClient, alice: Any) -> None:
    model = make_model(alice, requirement="require_x_updates", requirement_args=[1])
    send_update(model, make_client(model).client, {"w": [0.25] * 50_000})
    aggregate = aggregate_now(model)

    answer: Any = owner.get(f"{API}model_aggregates/{aggregate.pk}/")
    read = json.loads(b"".join(answer.streaming_content))

    listed = owner.get(f"{API}model_aggregates/").json()[0]
    assert {**read, "result": None} == {**listed, "result": None}
    assert read["result"] == {"w": [0.25] * 50_000}
