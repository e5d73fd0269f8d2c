"""The programs in examples/ do what they say, as processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fma_connect import DeveloperClient
from tests.docs.page import REPOSITORY
from tests.servers.fma import FmaServer, StartFma, User

pytestmark = pytest.mark.processes

TRUE_SLOPE, TRUE_OFFSET = np.array([2.0, -1.0]), 0.5


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FmaServer]:
    with ExitStack() as stack:
        yield StartFma(tmp_path_factory.mktemp("examples"), stack)()


@pytest.fixture(scope="module")
def anna(server: FmaServer) -> User:
    return server.install.add_user("anna")


def test_developer_and_edge_clients_train_a_model_together(
    server: FmaServer, anna: User, tmp_path: Path
) -> None:
    (tmp_path / "anna.json").write_text(json.dumps({"token": anna.token}))
    developer = run(
        "developer.py", "--url", server.base_url, "--user", "anna.json", "--inputs", "2", folder=tmp_path
    )
    assert developer.stdout is not None
    model = developer.stdout.readline().split()[1]
    clients = []
    for number, size in enumerate((30, 60)):
        write_measurements(tmp_path / f"{number}.csv", size=size, seed=number)
        arguments = ["--model", model, "--data", f"{number}.csv", "--credential", f"{number}.json"]
        clients.append(run("edge_client.py", "--url", server.base_url, *arguments, folder=tmp_path))

    for process in (*clients, developer):
        printed, _ = process.communicate(timeout=60)
        assert process.returncode == 0, printed
    learnt = load_file(tmp_path / "model.safetensors")
    np.testing.assert_allclose(learnt["slope"], TRUE_SLOPE, atol=0.1)
    np.testing.assert_allclose(learnt["offset"], TRUE_OFFSET, atol=0.1)


def test_script_for_the_old_client_runs_unchanged(server: FmaServer, anna: User, tmp_path: Path) -> None:
    with DeveloperClient(server.base_url, token=anna.token) as developer:
        model = developer.create_model("old", aggregator="average_layers")["id"]
    script = run("fma_v1_client.py", str(model), server.base_url, folder=tmp_path)
    printed, _ = script.communicate(timeout=60)
    assert script.returncode == 0, printed
    assert printed.splitlines()[-1].endswith("is [[0.875, 0.875], [0.875]]")


def run(program: str, *arguments: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(REPOSITORY / "examples" / program), *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def write_measurements(path: Path, *, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(size, 2))
    targets = inputs @ TRUE_SLOPE + TRUE_OFFSET + rng.normal(scale=0.05, size=size)
    np.savetxt(path, np.column_stack([inputs, targets]), delimiter=",")
