"""Clients with keys, certificates and signatures against a real server that takes signed updates only."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from fma_connect import Client, DeveloperClient
from fma_connect.clients import client as module
from fma_connect.exceptions import NotAllowed
from fma_connect.peers import read_trusted_issuers
from fma_core.identity.keys import fingerprint
from tests.servers.fma import FmaServer, StartFma, User

pytestmark = [pytest.mark.processes, pytest.mark.slow]
WEIGHTS: dict[str, np.ndarray[Any, Any]] = {"w": np.zeros((3, 4), np.float32), "b": np.zeros(4)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FmaServer]:
    with ExitStack() as stack:
        yield StartFma(tmp_path_factory.mktemp("signed"), stack)({"FMA_SIGNED_UPDATES": "required"})


@pytest.fixture(scope="module")
def owner(server: FmaServer) -> User:
    return server.install.add_user("ann", staff=True)


@pytest.fixture(scope="module")
def developer(server: FmaServer, owner: User) -> Iterator[DeveloperClient]:
    with DeveloperClient(server.base_url, token=owner.token) as developer:
        yield developer


@pytest.fixture
def model(developer: DeveloperClient) -> int:
    number: int = developer.create_model("signed", requirement="require_x_updates", requirement_args=[6])[
        "id"
    ]
    developer.set_initial_model(number, WEIGHTS)
    return number


def test_every_way_of_sending_is_signed(
    server: FmaServer, model: int, developer: DeveloperClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways: list[dict[str, Any]] = [
        {},
        {"metrics": {"loss": 1e-7, "rounds": [1, 2.5, 10**17, 3.0], "é": None}, "num_examples": 12},
        {"compress": True},
        {"quantise": "float16", "metrics": {"x": -0.0}},
        {"metrics": {"texts": ["x" * 5000]}},  # too long for a header: it begins an upload
    ]
    for place, said in enumerate(ways):
        with Client(server.base_url, model, credential_file=tmp_path / f"{place}.json") as client:
            client.pull()
            client.push({name: array + place for name, array in WEIGHTS.items()}, **said)
    monkeypatch.setattr(module, "LEAST_BYTES", 1)  # in parts
    with Client(server.base_url, model, credential_file=tmp_path / "parts.json") as client:
        client.pull()
        client.push(WEIGHTS, num_examples=2)
        client.rotate_credential()
        assert client.wait_for_next(timeout_s=60) is not None

    updates = developer.updates(model)
    assert len({update["signed_by"] for update in updates}) == len(ways) + 1
    verified = json.loads(server.install.run("verify", str(model), "--json"))
    others = verified["signatures"].pop("other_files")
    assert len(others) == 2, "the compressed one and the quantised one"
    assert verified["signatures"] == {"num_signed": 6, "num_other_keys": 0, "wrong": []}
    assert verified["result"] == "equal"


def test_a_credential_alone_sends_nothing(server: FmaServer, model: int, tmp_path: Path) -> None:
    path = tmp_path / "client.json"
    with Client(server.base_url, model, credential_file=path) as client:
        client.register()
    stolen = json.loads(path.read_text())["uuid"]

    with Client(server.base_url, model, credential_file=None, uuid=stolen) as thief:
        thief.pull()
        with pytest.raises(NotAllowed, match="signature_required"):
            thief.push(WEIGHTS)


def test_a_certificate_comes_from_the_organisation_to_the_peers(
    server: FmaServer, owner: User, model: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = server.install.run
    made = json.loads(
        run("organisation", "keygen", "Hospital North", "--out", str(tmp_path / "hospital.key"))
    )
    with httpx.Client(base_url=f"{server.base_url}/api/v1/", headers=owner.headers) as http:
        place = http.post("organisations/", json={"name": "Hospital North"}).json()["id"]
        added = http.post(f"organisations/{place}/issuers/", json={"public_key": made["public_key"]})
        assert added.status_code == 201, added.text
        paths = {name: tmp_path / f"{name}.json" for name in ("client", "request", "certificate")}
        with Client(server.base_url, model, credential_file=paths["client"]) as client:
            client.register()
            paths["request"].write_text(json.dumps(client.key_request()))
        run(
            *("organisation", "sign", str(paths["request"]), "--key", str(tmp_path / "hospital.key")),
            *("--label", "MRI", "--out", str(paths["certificate"])),
        )
        with Client(
            server.base_url, model, credential_file=paths["client"], certificate=paths["certificate"]
        ) as client:
            public_id = client.register()

        key = http.get(f"clients/{public_id}/").json()["key"]
        assert (key["certificate"]["state"], key["certificate"]["label"]) == ("valid", "MRI")
        assert key["certificate"]["organisation"] == "Hospital North"
        assert key["certificate"]["issuer"] == made["fingerprint"] == added.json()["fingerprint"]
        assert key["fingerprint"] == fingerprint(bytes.fromhex(key["public_key"]))
        trusted = read_trusted_issuers(tmp_path)
        certificate = json.loads(paths["certificate"].read_text())
        assert trusted.verify_peer(key["public_key"], certificate) == "Hospital North"

        http.delete(f"organisations/{place}/issuers/{added.json()['id']}/")
        assert http.get(f"clients/{public_id}/").json()["key"]["certificate"]["state"] == "issuer revoked"


def test_an_operator_lets_a_new_key_in(server: FmaServer, owner: User, model: int, tmp_path: Path) -> None:
    lost, path = tmp_path / "lost.json", tmp_path / "new.json"
    with Client(server.base_url, model, credential_file=lost) as client:
        public_id = client.register()
    lost.unlink()
    with Client(server.base_url, model, credential_file=path) as client:
        request = tmp_path / "request.json"
        request.write_text(json.dumps(client.key_request()))

    server.install.run("client", "key", str(public_id), "--request", str(request))
    credential = json.loads(server.install.run("client", "rotate", str(public_id)))["uuid"]

    with Client(server.base_url, model, credential_file=path, uuid=credential) as client:
        client.pull()
        assert client.push(WEIGHTS)["client"] == public_id
