"""A credential that is rotated: in the file before it is used, whenever the client dies."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fma_connect import Client, DeveloperClient
from fma_connect.exceptions import NotAllowed
from tests.connect.conftest import FakeTime
from tests.connect.scripted_server import DROP, Reply, ScriptedServer, Seen, json_reply
from tests.servers.fma import REPOSITORY, FmaServer, StartFma

REGISTER = "api/v1/models/3/register_client/"
CREDENTIAL = "api/v1/clients/me/credential/"
ME = "api/v1/me/"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "client.json"


@pytest.fixture
def client(server: ScriptedServer, fake_time: FakeTime, path: Path) -> Iterator[Client]:
    server.on("POST", REGISTER, json_reply({"uuid": "former", "id": "c-17"}))
    server.on("POST", CREDENTIAL, json_reply({"uuid": "next", "id": "c-17"}, 201))
    server.on("GET", ME, json_reply({}))
    with Client(server.url, 3, credential_file=path, telemetry=False, **fake_time.injected) as client:
        yield client


def test_the_next_credential_is_in_the_file_and_in_use(
    client: Client, server: ScriptedServer, path: Path
) -> None:
    client.rotate_credential()
    client.me()

    assert [seen.headers.get("client-uuid") for seen in server.seen] == [None, "former", "next"]
    kept = json.loads(path.read_text())
    assert (kept["uuid"], kept["client"]) == ("next", "c-17")
    assert "rotation_key" not in kept, "an older version of this library reads the file"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_the_key_is_in_the_file_before_the_request(
    client: Client, server: ScriptedServer, path: Path
) -> None:
    client.register()
    kept: list[dict[str, str]] = []

    def answer(seen: Seen) -> Reply:
        kept.append(json.loads(path.read_text()))
        return json_reply({"uuid": "next", "id": "c-17"}, 201)

    server.on("POST", CREDENTIAL, DROP, answer)

    client.rotate_credential()

    keys = [seen.headers["idempotency-key"] for seen in server.seen if seen.path.endswith("credential/")]
    assert keys == [kept[0]["rotation_key"]] * 2
    assert kept[0]["uuid"] == "former"


def test_a_rotation_that_was_begun_is_completed_at_the_next_start(
    client: Client, server: ScriptedServer, path: Path, fake_time: FakeTime
) -> None:
    client.register()
    path.write_text(json.dumps({**json.loads(path.read_text()), "rotation_key": "k" * 16}))

    with Client(server.url, 3, credential_file=path, telemetry=False, **fake_time.injected) as later:
        later.me()

    [asked] = [seen for seen in server.seen if seen.path.endswith("credential/")]
    assert asked.headers["idempotency-key"] == "k" * 16
    assert server.seen[-1].headers["client-uuid"] == "next"


def test_a_file_that_another_process_has_rotated_is_not_written_over(
    client: Client, server: ScriptedServer, path: Path
) -> None:
    client.register()
    path.write_text(json.dumps({**json.loads(path.read_text()), "uuid": "of another"}))

    client.rotate_credential()

    assert server.seen[-1].headers["client-uuid"] == "of another"


def test_without_a_file_it_is_in_memory(server: ScriptedServer, client: Client, fake_time: FakeTime) -> None:
    with Client(server.url, 3, credential_file=None, telemetry=False, **fake_time.injected) as other:
        other.rotate_credential()
        other.me()

    assert server.seen[-1].headers["client-uuid"] == "next"


# kill -9 at each step

SCRIPT = """
import os, signal, sys
from fma_connect import Client
from fma_connect.transport import Transport
steps = iter(range(1, 100))
def step():
    if next(steps) == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
def with_steps(function):
    def wrapped(*args, **kwargs):
        step()
        result = function(*args, **kwargs)
        step()
        return result
    return wrapped
os.replace = with_steps(os.replace)
Transport.call = with_steps(Transport.call)
with Client(sys.argv[1], int(sys.argv[2]), credential_file=sys.argv[3], telemetry=False) as client:
    client.rotate_credential()
    print("rotated", flush=True)
    client.me()
"""
STEPS = 8
"""Before and after: the file with the key, the request, the file with the credential, the first use."""


@pytest.fixture(scope="module")
def fma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FmaServer]:
    with ExitStack() as stack:
        yield StartFma(tmp_path_factory.mktemp("rotation"), stack)(worker=False)


@pytest.fixture(scope="module")
def model(fma: FmaServer) -> int:
    with DeveloperClient(fma.base_url, token=fma.install.add_user("ann").token) as developer:
        number: int = developer.create_model("rotated")["id"]
    return number


def rotate_in_a_process(fma: FmaServer, model: int, path: Path, *, killed_at: int) -> int:
    command = [sys.executable, "-c", SCRIPT, fma.base_url, str(model), str(path), str(killed_at)]
    return subprocess.run(command, cwd=REPOSITORY, timeout=120, stdout=subprocess.DEVNULL).returncode


@pytest.mark.processes
@pytest.mark.parametrize("killed_at", range(1, STEPS + 1))
def test_a_client_that_was_killed_goes_on(fma: FmaServer, model: int, path: Path, killed_at: int) -> None:
    with Client(fma.base_url, model, credential_file=path, telemetry=False) as client:
        public_id = client.register()
    former = json.loads(path.read_text())["uuid"]

    assert rotate_in_a_process(fma, model, path, killed_at=killed_at) == -signal.SIGKILL
    assert path.stat().st_mode & 0o777 == 0o600

    with Client(fma.base_url, model, credential_file=path, telemetry=False) as client:
        assert client.me()["id"] == public_id
        now = json.loads(path.read_text())
        assert "rotation_key" not in now
        client.rotate_credential()
        assert client.me()["id"] == public_id
    for refused in {former, now["uuid"]}:
        with (
            Client(fma.base_url, model, credential_file=None, uuid=refused, telemetry=False) as client,
            pytest.raises(NotAllowed),
        ):
            client.register()


@pytest.mark.processes
def test_the_steps_are_all_that_there_are(fma: FmaServer, model: int, path: Path) -> None:
    with Client(fma.base_url, model, credential_file=path, telemetry=False) as client:
        client.register()

    assert rotate_in_a_process(fma, model, path, killed_at=STEPS + 1) == 0
    assert list(path.parent.iterdir()) == [path]
