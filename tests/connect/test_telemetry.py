"""Telemetry: a client sends it by itself, and training never suffers from it."""

import getpass
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fma_connect import Client
from fma_connect import device_facts as device
from fma_connect.telemetry import ERRORS, REPORT_EVERY_S, REPORTS, SPEED_TEST, SPEED_TEST_BYTES
from tests.connect.conftest import FakeTime
from tests.connect.scripted_server import DROP, Reply, ScriptedServer, Seen, json_reply

REGISTER = "api/v1/models/3/register_client/"
LATEST = "api/v1/models/3/get_latest_model/"
UPDATES = "api/v1/model_updates/"

MakeClient = Callable[..., Client]


@pytest.fixture
def make(
    server: ScriptedServer, fake_time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MakeClient]:
    monkeypatch.delenv("FMA_TELEMETRY", raising=False)
    made: list[Client] = []

    def make(**changes: Any) -> Client:
        made.append(Client(server.url, 3, **{"credential_file": None, **fake_time.injected, **changes}))
        return made[-1]

    def bytes_in(time_s: float) -> Callable[[Seen], Reply]:
        def answer(seen: Seen) -> Reply:
            size = int(seen.query.get("bytes", 0))
            fake_time.now_s += 0.01 + (time_s if size or seen.body else 0.0)
            return Reply(200, b"x" * size) if seen.method == "GET" else json_reply({"size_bytes": 1})

        return answer

    server.on("POST", REGISTER, json_reply({"uuid": "s3cr3t", "id": "c-17"}))
    server.on("GET", LATEST, Reply(204))
    server.on("POST", UPDATES, json_reply({"id": 1}, 201))
    server.on("POST", REPORTS, json_reply({}, 201))
    server.on("POST", ERRORS, json_reply({}, 201))
    server.on("GET", SPEED_TEST, bytes_in(0.1))
    server.on("POST", SPEED_TEST, bytes_in(0.2))
    yield make
    for client in made:
        client.close()


def reports(server: ScriptedServer) -> list[Any]:
    return [seen.json() for seen in server.calls("POST", REPORTS)]


def test_first_call_reports_and_the_next_ones_do_not(server: ScriptedServer, make: MakeClient) -> None:
    client = make()

    client.register()
    client.pull()
    client.push({"w": np.ones(1)})

    (report,) = reports(server)
    assert report["versions"]["numpy"] == np.__version__
    assert report["resources"]["num_cpus"] >= 1
    assert server.calls("POST", REPORTS)[0].headers["client-uuid"] == "s3cr3t"


def test_report_is_sent_again_after_a_while(
    server: ScriptedServer, make: MakeClient, fake_time: FakeTime
) -> None:
    client = make()
    for wait_s in (0.0, REPORT_EVERY_S / 2, REPORT_EVERY_S):
        fake_time.now_s += wait_s
        client.pull()

    assert len(reports(server)) == 2


def test_speed_of_the_line_is_measured_once_a_day(
    server: ScriptedServer, make: MakeClient, fake_time: FakeTime
) -> None:
    client = make()
    client.pull()
    fake_time.now_s += REPORT_EVERY_S
    client.pull()

    first, second = (report["connectivity"] for report in reports(server))
    assert first["ping_ms"] == pytest.approx(10)
    assert first["download_mbps"] == pytest.approx(SPEED_TEST_BYTES * 8e-6 / 0.1)
    assert first["upload_mbps"] == pytest.approx(SPEED_TEST_BYTES * 8e-6 / 0.2)
    assert second == pytest.approx(first)
    assert [len(seen.body) for seen in server.calls("POST", SPEED_TEST)] == [SPEED_TEST_BYTES]


def test_metered_line_is_not_tested(server: ScriptedServer, make: MakeClient) -> None:
    client = make()
    client.describe(connectivity={"is_unmetered": False})
    client.pull()

    assert reports(server)[0]["connectivity"] == {"is_unmetered": False}
    assert not server.calls("GET", SPEED_TEST)


def test_what_is_described_goes_with_every_report(
    server: ScriptedServer, make: MakeClient, fake_time: FakeTime
) -> None:
    client = make()
    client.pull()
    client.describe(device={"kind": "phone"}, versions={"framework": "torch 2.13.0"})
    client.pull()
    fake_time.now_s += REPORT_EVERY_S
    client.pull()

    assert ["kind" in report["device"] for report in reports(server)] == [False, True, True]
    assert reports(server)[1]["versions"]["framework"] == "torch 2.13.0"
    assert reports(server)[1]["versions"]["numpy"] == np.__version__


def test_section_that_does_not_exist_is_refused_at_once(make: MakeClient) -> None:
    with pytest.raises(ValueError, match="connectivity"):
        make().describe(network={"is_unmetered": True})


def test_nothing_names_anybody(server: ScriptedServer, make: MakeClient) -> None:
    make().pull()

    sent = json.dumps(reports(server)).lower()
    for name in (
        socket.gethostname(),
        str(Path.cwd()),
        str(Path.home()),
        f'"{getpass.getuser()}"',
        "127.0.0.1",
    ):
        assert name.lower() not in sent


@pytest.mark.parametrize("said", ["off", "OFF", "0", "false"])
def test_environment_switches_it_off(
    server: ScriptedServer, make: MakeClient, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv("FMA_TELEMETRY", said)
    client = make()

    client.pull()

    assert not client.report_error("x")
    assert {seen.path for seen in server.seen} == {f"/{REGISTER}", f"/{LATEST}"}


def test_argument_switches_it_off(server: ScriptedServer, make: MakeClient) -> None:
    make(telemetry=False).pull()

    assert not reports(server)


@pytest.mark.parametrize(
    "reply",
    [
        DROP,
        json_reply({}, 500),
        json_reply({}, 503),
        json_reply({}, 429, Retry_After="3600"),
        json_reply({}, 400),
    ],
    ids=["dropped", "500", "503", "429", "400"],
)
@pytest.mark.parametrize("path", [REPORTS, SPEED_TEST], ids=["report", "speed-test"])
def test_report_that_fails_disturbs_nothing(
    server: ScriptedServer, make: MakeClient, fake_time: FakeTime, path: str, reply: Reply
) -> None:
    for method in ("GET", "POST"):
        server.on(method, path, reply)
    client = make()
    began = fake_time.now_s

    assert client.pull() is None
    assert client.register() == "c-17"

    assert fake_time.now_s - began < 10


def test_server_that_takes_none_is_asked_once(
    server: ScriptedServer, make: MakeClient, fake_time: FakeTime
) -> None:
    for method, path in (("GET", SPEED_TEST), ("POST", REPORTS)):
        server.on(method, path, json_reply({}, 404))
    client = make()
    for _ in range(3):
        client.pull()
        fake_time.now_s += REPORT_EVERY_S

    assert len(server.calls("GET", SPEED_TEST)) == 1


def test_error_is_reported_without_what_an_exception_says(server: ScriptedServer, make: MakeClient) -> None:
    client = make()
    error = FileNotFoundError("/home/anna/patients.csv")

    assert client.report_error(error, round=4)
    assert client.report_error("out_of_memory", "a batch of 512")

    first, second = (seen.json() for seen in server.calls("POST", ERRORS))
    assert first == {"code": "FileNotFoundError", "federated_model": 3, "round": 4}
    assert second == {"code": "out_of_memory", "federated_model": 3, "message": "a batch of 512"}


def test_traceback_is_sent_only_when_asked_for(server: ScriptedServer, make: MakeClient) -> None:
    with pytest.raises(RuntimeError) as raised:
        raise RuntimeError("boom")

    assert make().report_error(raised.value, traceback=True)

    (seen,) = server.calls("POST", ERRORS)
    assert seen.json()["traceback"].rstrip().endswith("RuntimeError: boom")


def test_error_that_cannot_be_reported_raises_nothing(server: ScriptedServer, make: MakeClient) -> None:
    server.on("POST", ERRORS, DROP)

    assert make().report_error("x") is False


# The device


def test_linux_says_what_memory_and_battery_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 8 kB\nMemFree: 1 kB\nMemAvailable: 4 kB\n")
    for name, files in (
        ("BAT0", {"type": "Battery", "capacity": "50", "status": "Discharging"}),
        ("mouse", {"type": "Battery", "scope": "Device", "capacity": "3", "status": "Full"}),
        ("AC", {"type": "Mains", "online": "0"}),
    ):
        (tmp_path / "power" / name).mkdir(parents=True)
        for file, text in files.items():
            (tmp_path / "power" / name / file).write_text(f"{text}\n")
    monkeypatch.setattr(device, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(device, "POWER_SUPPLIES", tmp_path / "power")

    resources = device.facts_of_this_device()["resources"]

    assert (resources["memory_bytes"], resources["free_memory_bytes"]) == (8192, 4096)
    assert (resources["battery"], resources["is_charging"]) == (0.5, False)


@pytest.mark.parametrize("psutil", [True, False])
def test_what_cannot_be_found_out_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, psutil: bool
) -> None:
    class Psutil:
        @staticmethod
        def virtual_memory() -> Any:
            return type("Memory", (), {"total": 2, "available": 1})

        @staticmethod
        def sensors_battery() -> Any:
            return type("Battery", (), {"percent": 25.0, "power_plugged": True})

    def import_module(name: str) -> Any:
        if not psutil:
            raise ImportError(name)
        return Psutil

    monkeypatch.setattr(device, "MEMORY", tmp_path / "none")
    monkeypatch.setattr(device, "POWER_SUPPLIES", tmp_path / "none")
    monkeypatch.setattr(device.importlib, "import_module", import_module)  # type: ignore[attr-defined]
    monkeypatch.setattr(device.platform, "release", lambda: "6.8.0-hospital-17")  # type: ignore[attr-defined]
    monkeypatch.setattr(device.platform, "machine", lambda: "anna@home")  # type: ignore[attr-defined]
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "getloadavg", raising=False)

    found = device.facts_of_this_device()

    assert found["system"]["version"] == "6.8"
    assert "machine" not in found["device"]
    assert "load" not in found["resources"]
    expected = (
        {"memory_bytes": 2, "free_memory_bytes": 1, "battery": 0.25, "is_charging": True} if psutil else {}
    )
    kept = {name: found["resources"][name] for name in expected}
    assert kept == expected
    assert psutil or "battery" not in found["resources"]
