"""docker-compose.yml, .env.example and the Dockerfile: that they are right, and that what they start works."""

import json
import re
import subprocess
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from fma_api.environment import SETTINGS
from tests.platform.compose import (
    REPOSITORY,
    OnLoopback,
    Service,
    image_environment,
    read_env_file,
    read_services,
)
from tests.servers.free_port import free_port
from tests.servers.postgres import PostgresServer
from tests.servers.process import ServerProcess

SECRETS = {
    "FMA_SECRET_KEY": "only-for-this-test-" + "0123456789abcdef" * 3,
    "POSTGRES_PASSWORD": "password-of-this-test",
    "OBJECTS_SECRET_KEY": "key-of-this-test",
}
ENV = read_env_file(REPOSITORY / ".env.example") | SECRETS
KNOWN = {setting.name for setting in SETTINGS} | {f"{setting.name}_FILE" for setting in SETTINGS}


def test_every_variable_that_is_named_is_a_setting() -> None:
    named = set(re.findall(r"FMA_[A-Z0-9_]+", (REPOSITORY / ".env.example").read_text()))
    for service in read_services(ENV).values():
        named |= {name for name in service.environment if name.startswith("FMA_")}

    assert named <= KNOWN


@pytest.mark.parametrize("missing", sorted(SECRETS.keys() - {"FMA_SECRET_KEY"}))
def test_a_secret_that_is_missing_stops_compose(missing: str) -> None:
    with pytest.raises(KeyError, match=missing):
        read_services({name: value for name, value in ENV.items() if name != missing})


def test_no_secret_has_a_value_in_the_repository() -> None:
    example = read_env_file(REPOSITORY / ".env.example")

    assert {name: example[name] for name in SECRETS} == dict.fromkeys(SECRETS, "")


def test_everything_waits_for_what_it_needs() -> None:
    services = read_services(ENV)

    for service in services.values():
        for other, condition in service.depends_on.items():
            if condition == "service_healthy":
                assert services[other].healthcheck
            else:
                assert condition == "service_completed_successfully"
    assert {"migrate", "bucket"} <= services["web"].depends_on.keys() & services["worker"].depends_on.keys()


def test_the_image_is_built_from_what_is_there() -> None:
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    copied = [
        word for line in re.findall(r"^COPY (?!--)(.*)$", dockerfile, re.M) for word in line.split()[:-1]
    ]
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    assert all((REPOSITORY / path).exists() for path in copied)
    assert set(re.search(r"\.\[([a-z0-9,]+)\]", dockerfile)[1].split(",")) <= extras.keys()
    assert image_environment().keys() & KNOWN == {"FMA_DATA_DIR", "FMA_LOG_FORMAT"}


class Deployment:
    """The services that run on this machine."""

    def __init__(self, services: dict[str, Service], loopback: OnLoopback, folder: Path, url: str) -> None:
        self.url = url
        self._services = services
        self._loopback = loopback
        self._folder = folder
        self.processes: list[ServerProcess] = []

    def run(self, name: str, *instead: str) -> str:
        """Run a service, or another `fma` command in its place, to its end."""
        service = self._services[name]
        command = self._loopback.command(service)
        if instead:
            command = [*command[: -len(service.command)], *instead]
        done = subprocess.run(
            command, env=self._loopback.environment(service), cwd=self._folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, name: str) -> ServerProcess:
        service = self._services[name]
        process = ServerProcess(
            self._loopback.command(service),
            env=self._loopback.environment(service),
            cwd=self._folder,
            log=self._folder / f"{name}.log",
        )
        self.processes.append(process)
        return process

    def start_healthy(self, name: str) -> ServerProcess:
        process = self.start(name)
        process.wait_until(
            lambda: self._loopback.is_healthy(self._services[name]), f"{name} is healthy", limit_s=60
        )
        return process


@pytest.fixture
def deployment(tmp_path: Path, postgres_server: PostgresServer) -> Iterator[Deployment]:
    """Start the services of `docker compose up`, in the order of its `depends_on`."""
    services = read_services(ENV)
    database = services["postgres"].environment
    web, objects, postgres = (
        f"127.0.0.1:{free_port()}",
        f"127.0.0.1:{free_port()}",
        urlsplit(postgres_server.url),
    )
    folders = {"data": tmp_path / "data", "objects": tmp_path / "objects"}
    for folder in folders.values():
        folder.mkdir()
    loopback = OnLoopback(
        {"web:8000": web, "objects:9000": objects, "postgres:5432": f"{postgres.hostname}:{postgres.port}"},
        folders,
    )
    drop = [f"DROP DATABASE IF EXISTS {database['POSTGRES_DB']} WITH (FORCE)", "DROP ROLE IF EXISTS fma"]
    create = [
        f"CREATE ROLE {database['POSTGRES_USER']} LOGIN PASSWORD '{database['POSTGRES_PASSWORD']}'",
        f"CREATE DATABASE {database['POSTGRES_DB']} OWNER {database['POSTGRES_USER']}",
    ]
    for statement in drop + create:
        postgres_server.execute(statement)
    deployment = Deployment(services, loopback, tmp_path, f"http://{web}")
    try:
        store = deployment.start("objects")
        store.wait_until(lambda: "Starting s3 server" in store.log_text(), "the store listens")
        deployment.run("bucket")
        deployment.run("migrate")
        deployment.start_healthy("web")
        deployment.start_healthy("worker")
        yield deployment
    finally:
        for process in deployment.processes:
            process.kill()
        for statement in drop:
            postgres_server.execute(statement)


@pytest.fixture
def owner(deployment: Deployment) -> Iterator[httpx.Client]:
    token = json.loads(deployment.run("web", "user", "add", "anna"))["token"]
    headers = {"Authorization": f"Token {token}"}
    with httpx.Client(
        base_url=f"{deployment.url}/api/v1", headers=headers, trust_env=False, timeout=30
    ) as client:
        yield client


def send_update(deployment: Deployment, model: int, weights: list[float]) -> None:
    """As a new client of the model."""
    with httpx.Client(base_url=f"{deployment.url}/api/v1", trust_env=False, timeout=30) as client:
        registered = client.post(f"/models/{model}/register_client/").raise_for_status().json()
        client.headers["CLIENT-UUID"] = registered["uuid"]
        client.post("/model_updates/", json={"federated_model": model, "data": weights}).raise_for_status()


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.postgres
@pytest.mark.s3
def test_a_round_goes_through_what_compose_starts(
    deployment: Deployment, owner: httpx.Client, tmp_path: Path
) -> None:
    body = {
        "name": "digits",
        "aggregator": "avg_values_if_data",
        "requirement": "require_x_updates",
        "requirement_args": [2],
        "allow_aggregation": True,
        "initial_model": [0.0, 0.0],
    }
    model = owner.post("/models/", json=body).raise_for_status().json()["id"]

    send_update(deployment, model, [1.0, 2.0])
    send_update(deployment, model, [3.0, 6.0])
    limit = time.monotonic() + 30
    while not (latest := owner.get(f"/models/{model}/get_latest_model/").json()).get("aggregate"):
        assert time.monotonic() < limit, latest
        time.sleep(0.1)

    assert latest["values"] == [2.0, 4.0]
    assert len(list((tmp_path / "objects" / "fma" / "weights").rglob("blobs/*/*"))) == 4
    for process in reversed(deployment.processes[1:]):
        assert process.stop() == 0
