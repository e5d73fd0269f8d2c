"""A client's key: made with its credential, registered once, used for every update."""

import base64
import json
import logging
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fma_connect import Client
from fma_connect.__main__ import main
from fma_connect.credential import Credential, CredentialFile
from fma_connect.exceptions import (
    Conflict,
    CredentialError,
    InvalidArgument,
    InvalidRequest,
    NotAllowed,
    ServerFailed,
)
from fma_connect.key import ClientKey
from fma_connect.peers import TrustedIssuers, read_trusted_issuers
from fma_connect.retry import RetryPolicy
from fma_core.errors import InvalidCertificate, InvalidKey
from fma_core.identity.keys import is_signed, public_key_in, public_key_of, signature_in
from fma_core.identity.possession import CLIENT, NO_SERVER, REGISTRATION, REQUEST, require_proof
from fma_core.identity.update import UpdateStatement
from tests.connect.conftest import FakeTime
from tests.connect.scripted_server import Reply, ScriptedServer, Seen, json_reply
from tests.keys import Key

REGISTER = "api/v1/models/3/register_client/"
KEY = "api/v1/clients/me/key/"
UPDATES = "api/v1/model_updates/"
ID = "6f1c2f7e-8c5b-4b0e-9f57-0d7e5f0b6a11"
WEIGHTS = {"b": np.ones(2)}


def registered(seen: Seen) -> Reply:
    body = seen.json() if seen.body else {}
    return json_reply({"uuid": "s3cr3t", "id": ID, "public_key": body.get("public_key")})


@pytest.fixture(autouse=True)
def answers(server: ScriptedServer) -> None:
    server.on("POST", REGISTER, registered)
    server.on("POST", KEY, json_reply({}))
    server.on("GET", "api/v1/me/", json_reply({"id": ID}))
    server.on("POST", UPDATES, json_reply({"id": 5}, 201))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "client.json"


@pytest.fixture
def make(server: ScriptedServer, fake_time: FakeTime, path: Path) -> Iterator[Any]:
    clients: list[Client] = []

    def build(**options: Any) -> Client:
        said = {"credential_file": path, "telemetry": False, **fake_time.injected, **options}
        clients.append(Client(server.url, 3, **said))
        return clients[-1]

    yield build
    for client in clients:
        client.close()


def older_file(path: Path, server: ScriptedServer, **members: Any) -> None:
    """A credential file of a version that knew no keys."""
    CredentialFile(path).save(Credential(server.url, 3, uuid="s3cr3t", client=ID, **members))


def test_a_client_registers_with_the_key_of_its_file(make: Any, server: ScriptedServer, path: Path) -> None:
    make().register()

    [seen] = server.calls("POST", REGISTER)
    kept, body = json.loads(path.read_text()), seen.json()
    assert body["public_key"] == public_key_of(bytes.fromhex(kept["private_key"])).hex()
    require_proof(
        public_key_in(body["public_key"]),
        signature_in(body["key_proof"]),
        REGISTRATION,
        seen.headers["idempotency-key"],
        servers=("127.0.0.1",),
    )
    assert kept["is_key_registered"] is True
    assert path.stat().st_mode & 0o777 == 0o600
    assert server.calls("POST", KEY) == []
    assert not any(kept["private_key"] in f"{seen.headers}{seen.body!r}{seen.path}" for seen in server.seen)


def test_the_private_key_is_not_shown(make: Any, path: Path) -> None:
    client = make()
    client.register()
    kept = CredentialFile(path).load()

    assert kept is not None
    assert kept.private_key not in f"{kept!r}{kept.key!r}{client!r}"


def test_an_older_file_gets_a_key_at_the_next_start(make: Any, server: ScriptedServer, path: Path) -> None:
    older_file(path, server)

    make().register()
    make().register()

    [seen] = server.calls("POST", KEY)
    body = seen.json()
    require_proof(
        public_key_in(body["public_key"]), signature_in(body["key_proof"]), CLIENT, ID, servers=("127.0.0.1",)
    )
    assert json.loads(path.read_text())["is_key_registered"] is True


def test_a_file_without_an_id_asks_for_it(make: Any, server: ScriptedServer, path: Path) -> None:
    CredentialFile(path).save(Credential(server.url, 3, uuid="s3cr3t"))

    make().register()

    body = server.calls("POST", KEY)[0].json()
    require_proof(
        public_key_in(body["public_key"]), signature_in(body["key_proof"]), CLIENT, ID, servers=("127.0.0.1",)
    )
    assert json.loads(path.read_text())["client"] == ID


@pytest.mark.parametrize("status", [404, 405, 503])
def test_a_client_works_without_its_key(
    make: Any, server: ScriptedServer, path: Path, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    older_file(path, server)
    server.on("POST", KEY, Reply(status))

    with caplog.at_level(logging.WARNING, "fma_connect"):
        client = make()
        client.push(WEIGHTS)
        client.push(WEIGHTS)

    assert len(server.calls("POST", KEY)) == 1, "asked once in a process"
    assert ["fma-signature" in seen.headers for seen in server.calls("POST", UPDATES)] == [False, False]
    assert "key_not_registered" in caplog.text
    server.on("POST", KEY, json_reply({}))
    make().push(WEIGHTS)
    assert "fma-signature" in server.calls("POST", UPDATES)[-1].headers


def test_an_older_server_registers_a_client_without_a_key(make: Any, server: ScriptedServer) -> None:
    server.on("POST", REGISTER, json_reply({"uuid": "s3cr3t", "id": ID}))

    make().push(WEIGHTS)

    assert server.calls("POST", KEY) == []
    assert "fma-signature" not in server.calls("POST", UPDATES)[0].headers


def test_a_given_credential_whose_key_is_elsewhere_still_registers(
    make: Any, server: ScriptedServer, path: Path
) -> None:
    refused = json_reply({"code": "client_has_key"}, 409)
    server.on("POST", REGISTER, lambda seen: refused if seen.body else registered(seen))

    make(uuid="0ld").register()

    kept = json.loads(path.read_text())
    assert kept["uuid"] == "s3cr3t"
    assert "is_key_registered" not in kept
    assert "private_key" in kept, "an operator may still register it"


def test_a_lost_key_is_told_where_the_client_made_the_credential(make: Any, server: ScriptedServer) -> None:
    server.on("POST", REGISTER, json_reply({"code": "client_has_key"}, 409))

    with pytest.raises(Conflict, match="client_has_key"):
        make().register()


def test_every_update_is_signed(make: Any, server: ScriptedServer, path: Path) -> None:
    metrics = {"loss": 0.25, "rounds": [1, 2.0]}
    make().push(WEIGHTS, num_examples=7, metrics=metrics, base_aggregate=9)

    [seen] = server.calls("POST", UPDATES)
    nonce, signature = map(bytes.fromhex, seen.headers["fma-signature"].split(" "))
    digest = seen.headers["content-digest"].removeprefix("sha-256=:").removesuffix(":")
    signed = UpdateStatement(uuid.UUID(ID), 3, 9, 7, metrics, base64.b64decode(digest), nonce)
    private_key = bytes.fromhex(json.loads(path.read_text())["private_key"])
    assert is_signed(public_key_of(private_key), signed.encode(), signature)
    assert len(nonce) == 16


def test_an_update_that_is_sent_again_has_the_same_signature(make: Any, server: ScriptedServer) -> None:
    server.on("POST", UPDATES, Reply(503), json_reply({"id": 5}, 201))
    client = make()

    client.push(WEIGHTS)
    client.push({"b": np.zeros(2)})

    first, second, third = (seen.headers["fma-signature"] for seen in server.calls("POST", UPDATES))
    assert first == second
    assert len({first, third}) == 2
    assert len({first[:32], third[:32]}) == 2, "each update has a nonce of its own"


def test_a_key_that_the_server_has_lost_is_added_again(make: Any, server: ScriptedServer, path: Path) -> None:
    client = make()
    client.register()
    refused, taken = (
        json_reply({"code": "invalid_signature", "detail": "no key"}, 403),
        json_reply({"id": 5}, 201),
    )
    server.on("POST", UPDATES, lambda seen: taken if server.calls("POST", KEY) else refused)

    client.push(WEIGHTS)

    first, second = server.calls("POST", UPDATES)
    assert first.headers["fma-signature"] == second.headers["fma-signature"]
    [added] = server.calls("POST", KEY)
    assert (
        added.json()["public_key"]
        == public_key_of(bytes.fromhex(json.loads(path.read_text())["private_key"])).hex()
    )


def test_an_update_waits_for_a_key_that_cannot_be_added_now(make: Any, server: ScriptedServer) -> None:
    make().register()
    refused = json_reply({"code": "invalid_signature", "detail": "no key"}, 403)
    adds = [Reply(503), json_reply({})]
    server.on("POST", KEY, *adds)
    server.on(
        "POST",
        UPDATES,
        lambda seen: json_reply({"id": 5}, 201) if len(server.calls("POST", KEY)) == len(adds) else refused,
    )
    client = make(retry=RetryPolicy(max_attempts=1))

    with pytest.raises(ServerFailed):
        client.push(WEIGHTS)
    client.push({"b": np.zeros(2)})

    digests = [seen.headers["content-digest"] for seen in server.calls("POST", UPDATES)]
    assert len(set(digests)) == 2, "the first one was kept"


@pytest.mark.parametrize("status", [200, 409])
def test_a_signature_that_stays_wrong_is_told(make: Any, server: ScriptedServer, status: int) -> None:
    client = make()
    client.register()
    server.on("POST", UPDATES, json_reply({"code": "invalid_signature", "detail": "wrong"}, 403))
    server.on("POST", KEY, json_reply({"code": "client_has_key", "detail": "another"}, status))

    for _ in range(2):
        with pytest.raises(NotAllowed, match="invalid_signature"):
            client.push(WEIGHTS)

    assert len(server.calls("POST", KEY)) == 1
    assert len(server.calls("POST", UPDATES)) == (3 if status == 200 else 2)


@pytest.mark.parametrize(
    "facts",
    [
        {"metrics": {"loss": "\ud800"}},
        {"metrics": {"\udfff": 1}},
        {"num_examples": 2**70},
        {"base_aggregate": 2**64},
    ],
    ids=["text", "name", "num_examples", "base_aggregate"],
)
def test_what_cannot_be_signed_is_told_and_not_kept(
    make: Any, server: ScriptedServer, path: Path, facts: dict[str, Any]
) -> None:
    client = make()
    with pytest.raises(InvalidArgument):
        client.push(WEIGHTS, **facts)

    assert not list(path.parent.glob("*.update"))
    client.push(WEIGHTS)
    make().push(WEIGHTS)
    assert len(server.calls("POST", UPDATES)) == 2


def test_processes_that_start_together_agree_on_a_key(path: Path, server: ScriptedServer) -> None:
    older_file(path, server)
    program = (
        "import sys; from fma_connect import Client\n"
        f"with Client({server.url!r}, 3, credential_file={str(path)!r}, telemetry=False) as client:\n"
        "    client.register()\n"
    )

    started = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(4)]

    assert [process.wait() for process in started] == [0] * 4
    sent = {seen.json()["public_key"] for seen in server.calls("POST", KEY)}
    private_key = json.loads(path.read_text())["private_key"]
    assert sent == {ClientKey(private_key).public_key}


@pytest.mark.parametrize("private_key", ["", "00", 5, "AB" * 32])
def test_a_damaged_key_is_told(path: Path, private_key: Any) -> None:
    members = {"format": 1, "server": "x", "model": 3, "registration_key": "k", "private_key": private_key}
    path.write_text(json.dumps(members))
    path.chmod(0o600)

    with pytest.raises(CredentialError, match="damaged"):
        CredentialFile(path).load()


# Certificates


@pytest.fixture
def issuer() -> Key:
    return Key()


def certificate_for(issuer: Key, private_key: str, path: Path) -> Path:
    path.write_text(json.dumps(issuer.certify(Key(bytes.fromhex(private_key))).to_json()))
    return path


def test_a_request_is_written_before_the_registration(
    make: Any, server: ScriptedServer, path: Path, issuer: Key, tmp_path: Path
) -> None:
    request = make().key_request()

    assert server.seen == []
    require_proof(
        public_key_in(request["public_key"]),
        signature_in(request["key_proof"]),
        REQUEST,
        "",
        servers=(NO_SERVER,),
    )
    kept = json.loads(path.read_text())
    file = certificate_for(issuer, kept["private_key"], tmp_path / "certificate.json")
    make(certificate=file).register()
    body = server.calls("POST", REGISTER)[0].json()
    assert body["public_key"] == request["public_key"]
    assert body["certificate"] == json.loads(file.read_text())


def test_a_certificate_is_sent_by_a_client_that_is_registered(
    make: Any, server: ScriptedServer, path: Path, issuer: Key, tmp_path: Path
) -> None:
    make().register()
    file = certificate_for(issuer, json.loads(path.read_text())["private_key"], tmp_path / "certificate.json")

    make(certificate=file).register()

    [seen] = server.calls("POST", KEY)
    assert seen.json()["certificate"] == json.loads(file.read_text())


def test_a_refused_certificate_is_told(
    make: Any, server: ScriptedServer, path: Path, issuer: Key, tmp_path: Path
) -> None:
    make().register()
    file = certificate_for(issuer, json.loads(path.read_text())["private_key"], tmp_path / "certificate.json")
    server.on("POST", KEY, json_reply({"code": "invalid_certificate", "detail": "has expired"}, 422))

    with pytest.raises(InvalidRequest, match="has expired"):
        make(certificate=file).register()


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[" * 9999])
def test_garbage_is_no_certificate(make: Any, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "certificate.json").write_bytes(content)

    with pytest.raises(InvalidArgument, match=r"certificate .*certificate\.json"):
        make(certificate=tmp_path / "certificate.json")
    with pytest.raises(InvalidArgument, match="cannot be read"):
        make(certificate=tmp_path / "missing.json")
    with pytest.raises(InvalidArgument, match="at most"):
        make(certificate="/dev/zero")
    with pytest.raises(InvalidArgument, match="no public file"):
        read_trusted_issuers("/dev/zero")


def test_the_command_writes_a_request_and_sends_a_certificate(
    server: ScriptedServer, path: Path, issuer: Key, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    invitation = tmp_path / "invitation.json"
    invitation.write_text(json.dumps({"format": 1, "server": server.url, "models": [3], "token": "t"}))
    request, credential = tmp_path / "request.json", ["--credential-file", str(path)]

    assert main([str(invitation), *credential, "--key-request", str(request)]) == 0
    assert server.seen == []
    private_key = json.loads(path.read_text())["private_key"]
    assert json.loads(request.read_text())["public_key"] == ClientKey(private_key).public_key
    file = certificate_for(issuer, private_key, tmp_path / "certificate.json")
    assert main([str(invitation), *credential, "--certificate", str(file)]) == 0
    assert main([*credential, "--certificate", str(file)]) == 0
    assert len(server.calls("POST", KEY)) == 1
    assert main([*credential, "--key-request", str(request)]) == 1
    assert "File exists" in capsys.readouterr().err
    assert main(["--credential-file", str(tmp_path / "other.json")]) == 1
    assert "name an invitation" in capsys.readouterr().err


# Peers


def public_file(path: Path, key: Key, organisation: str = "hospital") -> Path:
    path.write_text(json.dumps({"format": 1, "organisation": organisation, "public_key": key.public.hex()}))
    return path


def test_a_peer_is_verified_by_the_list_of_its_own_issuers(tmp_path: Path, issuer: Key) -> None:
    peer, other = Key(), Key()
    public_file(tmp_path / "a.pub", issuer)
    public_file(tmp_path / "b.pub", other, "clinic")
    trusted = read_trusted_issuers(tmp_path)

    certificate = issuer.certify(peer).to_json()

    assert trusted.verify_peer(peer.public.hex(), certificate) == "hospital"
    with pytest.raises(InvalidCertificate, match="names the organisation 'clinic'.* of 'hospital'"):
        trusted.verify_peer(peer.public.hex(), issuer.certify(peer, organisation="clinic").to_json())
    with pytest.raises(InvalidCertificate, match="expired"):
        trusted.verify_peer(peer.public.hex(), certificate, now=time.time() + 99 * 86400)
    with pytest.raises(InvalidCertificate, match="is for the key"):
        trusted.verify_peer(other.public.hex(), certificate)
    with pytest.raises(InvalidKey):
        trusted.verify_peer("0" * 64, certificate)
    with pytest.raises(InvalidCertificate, match="not trusted"):
        read_trusted_issuers(tmp_path / "b.pub").verify_peer(peer.public.hex(), certificate)
    with pytest.raises(InvalidCertificate, match="not trusted"):
        TrustedIssuers({}).verify_peer(peer.public.hex(), certificate)


PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"  # RFC 8032, 7.1
TWICE = f'{{"format": 1, "organisation": "a", "organisation": "b", "public_key": "{PUBLIC}"}}'


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"format": 1, "organisation": "", "public_key": "00"}', '"x"', "[" * 9999, TWICE],
)
def test_garbage_is_no_public_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.pub").write_text(content)

    with pytest.raises(InvalidArgument, match=r"x\.pub"):
        read_trusted_issuers(tmp_path / "x.pub")


def test_a_list_that_trusts_nobody_or_two_for_one_key_is_told(tmp_path: Path, issuer: Key) -> None:
    with pytest.raises(InvalidArgument, match="no file"):
        read_trusted_issuers(tmp_path)
    with pytest.raises(InvalidArgument, match="cannot be read"):
        read_trusted_issuers(tmp_path / "missing.pub")
    public_file(tmp_path / "a.pub", issuer)
    public_file(tmp_path / "b.pub", issuer, "clinic")
    with pytest.raises(InvalidArgument, match="another organisation"):
        read_trusted_issuers(tmp_path)


def test_who_signs_nothing_does_not_load_cryptography() -> None:
    program = "import sys, fma_connect, fma_connect.peers; print('cryptography' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"
