"""A real OpenID Connect provider in a process of its own.

with OidcProvider(folder, authority, redirect_uri=…, people=[Person("anna", …)]) as provider:
    FMA_OIDC_ISSUER=provider.issuer
"""

from __future__ import annotations

import json
import os
import ssl
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import httpx

from tests.servers.certificates import Authority
from tests.servers.free_port import free_port
from tests.servers.process import ServerProcess

REPOSITORY = Path(__file__).resolve().parents[2]
CLIENT_ID, SECRET = "fma", "of-the-test-only"


@dataclass(frozen=True)
class Person:
    username: str
    password: str
    email: str
    is_verified: bool = True
    groups: tuple[str, ...] = ()


class OidcProvider:
    """allauth's provider, answering when `with` is entered."""

    def __init__(
        self, folder: Path, authority: Authority, *, redirect_uri: str, people: Sequence[Person]
    ) -> None:
        self._authority = authority
        folder.mkdir(parents=True)
        certificate, key = authority.issue("provider")
        port = free_port()
        self.issuer = f"https://localhost:{port}"
        said = {
            "folder": str(folder),
            "port": port,
            "certificate": str(certificate),
            "key": str(key),
            "redirect_uri": redirect_uri,
            "client_id": CLIENT_ID,
            "secret": SECRET,
            "people": [asdict(person) for person in people],
        }
        self._said = folder / "said.json"
        self._said.write_text(json.dumps(said))

    def __enter__(self) -> Self:
        self._process = ServerProcess(
            [sys.executable, "-m", "tests.servers.oidc_site", str(self._said)],
            env={
                name: value for name, value in os.environ.items() if not name.startswith(("FMA_", "DJANGO_"))
            },
            cwd=REPOSITORY,
            log=self._said.with_name("provider.log"),
        )
        self._process.wait_until(self._answers, "it answers", limit_s=60)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()

    def _answers(self) -> bool:
        context = ssl.create_default_context(cafile=str(self._authority.certificate))
        try:
            url = f"{self.issuer}/.well-known/openid-configuration"
            return httpx.get(url, verify=context, trust_env=False, timeout=10).json()["issuer"] == self.issuer
        except httpx.TransportError:
            return False
