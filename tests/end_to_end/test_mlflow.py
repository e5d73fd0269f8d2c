"""A real MLflow server beside a real server and worker: what was measured arrives there, also after it was away."""

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from fma_connect import Client, DeveloperClient
from tests.servers.fma import StartFma
from tests.servers.free_port import free_port
from tests.servers.process import ServerProcess

pytestmark = [
    pytest.mark.processes,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("flask") is None, reason="needs mlflow with its server"),
]
STARTING_S = 120


class Mlflow:
    """`mlflow server` on a port and a folder of its own; it can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self._folder = folder
        self._command = (
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
            *("--backend-store-uri", f"sqlite:///{folder}/mlflow.sqlite3"),
            *("--artifacts-destination", str(folder / "artifacts"), "--workers", "1"),
        )
        self._process: ServerProcess | None = None

    def start(self) -> None:
        keep = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        # Its jobs, which nobody here has, would run in eight processes that take 27 s of CPU to start.
        env = {**keep, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        log = self._folder / "mlflow.log"
        self._process = ServerProcess(self._command, env=env, cwd=self._folder, log=log)
        self._process.wait_until(self._answers, "/health answers", limit_s=STARTING_S)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def post(self, call: str, **body: Any) -> dict[str, Any]:
        answer = httpx.post(f"{self.url}/api/2.0/mlflow/{call}", json=body, timeout=30, trust_env=False)
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    def history(self, run: str, metric: str) -> list[tuple[int, float]]:
        answer = httpx.get(
            f"{self.url}/api/2.0/mlflow/metrics/get-history",
            params={"run_id": run, "metric_key": metric},
            timeout=30,
            trust_env=False,
        )
        rows = answer.raise_for_status().json().get("metrics", [])
        return sorted((int(row["step"]), row["value"]) for row in rows)

    def _answers(self) -> bool:
        try:
            # No certificates for http: reading them takes as long as twenty answers.
            return (
                httpx.get(f"{self.url}/health", timeout=5, trust_env=False, verify=False).status_code == 200
            )
        except httpx.TransportError:
            return False


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[Mlflow]:
    (tmp_path / "mlflow").mkdir()
    server = Mlflow(tmp_path / "mlflow")
    yield server
    server.kill()


def test_metrics_arrive_in_mlflow_and_in_tensorboard(
    mlflow: Mlflow, fma_server: StartFma, tmp_path: Path
) -> None:
    mlflow.start()
    events = tmp_path / "events"
    server = fma_server(env={"FMA_MLFLOW_TRACKING_URI": mlflow.url, "FMA_TENSORBOARD_DIR": str(events)})
    owner = server.install.add_user("anna")
    with DeveloperClient(server.base_url, token=owner.token) as anna:
        model = anna.create_model("digits", aggregator="mean")["id"]
        with Client(server.base_url, model, credential_file=None, telemetry=False) as client:
            for number, loss in enumerate((0.5, 0.25), start=1):
                client.push({"w": np.ones(2)}, num_examples=3, metrics={"loss": loss})
                next(iter(anna.watch(model, after_round=number - 1, timeout_s=60)))

    def losses() -> list[tuple[int, float]]:
        experiment = httpx.get(
            f"{mlflow.url}/api/2.0/mlflow/experiments/get-by-name",
            params={"experiment_name": "fma"},
            timeout=30,
            trust_env=False,
        )
        if experiment.status_code != 200:
            return []
        found = experiment.json()["experiment"]["experiment_id"]
        runs = mlflow.post("runs/search", experiment_ids=[found]).get("runs", [])
        if not runs:
            return []
        assert [run["info"]["run_name"] for run in runs] == ["digits"]
        return mlflow.history(runs[0]["info"]["run_id"], "training/loss")

    server.process.wait_until(lambda: losses() == [(1, 0.5), (2, 0.25)], "MLflow has both rounds", limit_s=90)
    assert any((events / f"model-{model}").iterdir())


def test_round_is_published_when_mlflow_is_away(mlflow: Mlflow, fma_server: StartFma) -> None:
    server = fma_server(env={"FMA_MLFLOW_TRACKING_URI": mlflow.url})  # nobody listens there
    owner = server.install.add_user("anna")
    with DeveloperClient(server.base_url, token=owner.token) as anna:
        model = anna.create_model("digits", aggregator="mean")["id"]
        with Client(server.base_url, model, credential_file=None, telemetry=False) as client:
            client.push({"w": np.ones(2)}, num_examples=3, metrics={"loss": 0.5})
            round_ = next(iter(anna.watch(model, after_round=0, timeout_s=60)))

    assert round_["state"] == "published"
    server.process.wait_until(
        lambda: "forwarding_failed" in server.process.log_text(), "the worker says so", limit_s=90
    )
