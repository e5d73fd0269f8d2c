"""`fma organisation`: keys and certificates, without a server; and `fma client key`."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fma_api.cli.application import application
from fma_core.errors import InvalidCertificate
from fma_core.identity.certificate import read_certificate, require_certificate
from fma_core.identity.keys import fingerprint
from tests.keys import Key
from tests.servers.fma import COMMAND, FmaInstall

Run = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Run:
    """Run `fma organisation`; its line of JSON, or the sentence of its problem."""

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(application, ["organisation", *arguments])
        if done.exit_code == 0:
            return json.loads(done.stdout)
        assert done.exception is not None
        return f"{done.exception}{done.stderr}"

    return run


@pytest.fixture
def client(folder: Path) -> Key:
    """A client, whose request is in request.json."""
    key = Key()
    (folder / "request.json").write_text(json.dumps(key.request_file()))
    return key


def sign(run: Run, *arguments: str) -> Any:
    return run("sign", "request.json", "--key", "hospital.key", "--out", "certificate.json", *arguments)


def test_a_key_signs_the_key_of_a_client(run: Run, client: Key, folder: Path) -> None:
    made = run("keygen", "Hospital North", "--out", "hospital.key")

    signed = sign(run, "--label", "MRI scanner 3", "--days", "30")

    certificate = read_certificate((folder / "certificate.json").read_bytes())
    public = json.loads((folder / "hospital.pub").read_text())
    issuer = bytes.fromhex(public["public_key"])
    require_certificate(certificate, client.public, issuers={issuer: "Hospital North"}, now=time.time())
    assert (certificate.organisation, certificate.label) == ("Hospital North", "MRI scanner 3")
    assert certificate.not_after - certificate.not_before == 30 * 86400
    assert made["fingerprint"] == signed["issuer"] == fingerprint(issuer)
    assert signed["fingerprint"] == fingerprint(client.public)
    assert (folder / "hospital.key").stat().st_mode & 0o777 == 0o600
    assert (folder / "certificate.json").stat().st_mode & 0o777 == 0o644
    assert "PRIVATE KEY" not in json.dumps([made, signed, public])


def test_nothing_is_written_over(run: Run, client: Key, folder: Path) -> None:
    for name in ("hospital.key", "hospital.pub"):
        (folder / name).write_text("kept")
        assert "exists already" in run("keygen", "x", "--out", "hospital.key")
        assert (folder / name).read_text() == "kept"
        assert len(list(folder.iterdir())) == 2
        (folder / name).unlink()
    run("keygen", "x", "--out", "hospital.key")
    (folder / "certificate.json").symlink_to(folder / "elsewhere")
    assert "exists already" in sign(run)
    assert "ends with .pub" in run("keygen", "x", "--out", "other.pub")


@pytest.mark.parametrize("name", ["", "a\nb", "a" * 256])
def test_a_name_that_no_certificate_can_have_makes_no_key(run: Run, folder: Path, name: str) -> None:
    assert "organisation" in run("keygen", name, "--out", "hospital.key")
    assert list(folder.iterdir()) == []


def test_a_passphrase_protects_the_key(run: Run, client: Key, folder: Path) -> None:
    (folder / "right").write_text("correct horse\n")
    (folder / "wrong").write_text("horse\n")
    (folder / "empty").write_text("\n")
    assert "is empty" in run("keygen", "x", "--out", "hospital.key", "--passphrase-file", "empty")
    assert "no terminal" in run("keygen", "x", "--out", "hospital.key", "--passphrase")
    assert not (folder / "hospital.key").exists()

    run("keygen", "x", "--out", "hospital.key", "--passphrase-file", "right")

    assert "ENCRYPTED" in (folder / "hospital.key").read_text()
    assert "no terminal" in sign(run)
    assert "passphrase is wrong" in sign(run, "--passphrase-file", "wrong")
    assert "cannot be read" in sign(run, "--passphrase-file", "missing")
    assert not (folder / "certificate.json").exists()
    assert sign(run, "--passphrase-file", "right")["organisation"] == "x"


def test_openssl_reads_the_key(run: Run, folder: Path) -> None:
    made = run("keygen", "x", "--out", "hospital.key")

    done = subprocess.run(
        ["openssl", "pkey", "-in", "hospital.key", "-pubout", "-outform", "DER"],
        capture_output=True,
        check=True,
    )

    assert done.stdout[-32:].hex() == made["public_key"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read"),
        ("", "no JSON object"),
        ("[]", "no JSON object"),
        ("[" * 9999, "no JSON object"),
        ("{}", "no request"),
        (json.dumps(Key().request_file() | {"more": 1}), "no request"),
        (json.dumps(Key().request_file() | {"format": 2}), "no request"),
        (json.dumps(Key().request_file() | {"format": True}), "no request"),
        (json.dumps(Key().request_file())[:-1] + ', "format": 1}', "no JSON object"),
        (
            json.dumps(Key().request_file() | {"public_key": Key().public.hex()}),
            "not signed with the private key",
        ),
        (json.dumps(Key().request_file() | {"public_key": "00" * 32}), "small order"),
        (json.dumps(Key().request_file() | {"key_proof": 5}), "128 lower-case"),
        (json.dumps({"format": 1} | Key().at_registration()), "not signed with the private key"),
    ],
)
def test_what_is_no_request_is_not_signed(run: Run, folder: Path, content: str | None, reason: str) -> None:
    run("keygen", "x", "--out", "hospital.key")
    if content is not None:
        (folder / "request.json").write_text(content)

    assert reason in sign(run)
    assert not (folder / "certificate.json").exists()


def test_no_more_is_read_than_a_file_may_have(run: Run, client: Key, folder: Path) -> None:
    run("keygen", "x", "--out", "hospital.key")

    for endless in ("request.json", "hospital.pub"):
        kept = (folder / endless).read_bytes()
        (folder / endless).unlink()
        (folder / endless).symlink_to("/dev/zero")
        assert "no JSON object" in sign(run)
        (folder / endless).unlink()
        (folder / endless).write_bytes(kept)
    assert "no JSON object" in run("show", "/dev/zero")
    (folder / "hospital.key").unlink()
    (folder / "hospital.key").symlink_to("/dev/zero")
    assert "hospital.key cannot be read: it has more than 65536 bytes" in sign(run)


@pytest.mark.parametrize("content", [b"x" * 70_000, b"\xff" * 70_000, None])
def test_no_more_of_a_passphrase_is_read_than_it_may_have(
    run: Run, folder: Path, content: bytes | None
) -> None:
    if content is None:
        (folder / "secret").symlink_to("/dev/zero")
    else:
        (folder / "secret").write_bytes(content)

    said = run("keygen", "x", "--out", "hospital.key", "--passphrase-file", "secret")

    assert "secret cannot be read: it has more than 65536 bytes" in said
    assert list(folder.iterdir()) == [folder / "secret"]


def test_a_passphrase_that_is_no_text_is_not_quoted(run: Run, folder: Path) -> None:
    (folder / "secret").write_bytes(b"correct\xffhorse")

    said = run("keygen", "x", "--out", "hospital.key", "--passphrase-file", "secret")

    assert "secret is no text in UTF-8" in said
    assert "0xff" not in said


def test_a_passphrase_that_is_too_long_makes_no_key(run: Run, folder: Path) -> None:
    (folder / "secret").write_text("x" * 1024)

    assert "1023 bytes" in run("keygen", "x", "--out", "hospital.key", "--passphrase-file", "secret")
    assert not (folder / "hospital.key").exists()
    assert not (folder / "hospital.pub").exists()


def test_the_two_files_of_a_key_belong_together(run: Run, client: Key, folder: Path) -> None:
    run("keygen", "x", "--out", "hospital.key")
    run("keygen", "y", "--out", "other.key")

    os.replace("other.pub", "hospital.pub")
    assert "is of another key" in sign(run)
    (folder / "hospital.pub").write_text('{"format": 1, "organisation": 5, "public_key": "x"}')
    assert "no public file" in sign(run)
    (folder / "hospital.pub").unlink()
    assert "cannot be read" in sign(run)
    (folder / "hospital.key").write_text("garbage")
    run("keygen", "z", "--out", "third.key")
    os.replace("third.pub", "hospital.pub")
    assert "no PEM file" in sign(run)


def test_a_certificate_begins_when_it_is_said(run: Run, client: Key, folder: Path) -> None:
    run("keygen", "x", "--out", "hospital.key")

    signed = sign(run, "--not-before", "2030-01-01T00:00:00", "--days", "1")

    assert (signed["not_before"], signed["not_after"]) == (
        "2030-01-01T00:00:00+00:00",
        "2030-01-02T00:00:00+00:00",
    )
    certificate = read_certificate((folder / "certificate.json").read_bytes())
    issuers = {certificate.issuer: certificate.organisation}
    with pytest.raises(InvalidCertificate, match="not valid yet"):
        require_certificate(certificate, client.public, issuers=issuers, now=time.time())


def test_files_are_shown_once_they_are_what_they_say(run: Run, client: Key, folder: Path) -> None:
    run("keygen", "x", "--out", "hospital.key")
    signed = sign(run)

    assert run("show", "request.json")["fingerprint"] == fingerprint(client.public)
    assert run("show", "hospital.pub")["organisation"] == "x"
    assert run("show", "certificate.json") == {name: signed[name] for name in signed if name != "file"}
    forged = json.loads((folder / "certificate.json").read_text()) | {"organisation": "y"}
    (folder / "certificate.json").write_text(json.dumps(forged))
    assert "signature of the certificate is wrong" in run("show", "certificate.json")
    for name in ("hospital.key", "missing"):
        assert name in run("show", name)


def test_signing_needs_no_record(folder: Path) -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from fma_api.cli.application import application\n"
        "done = CliRunner().invoke(application, ['organisation', 'keygen', 'x', '--out', 'hospital.key'])\n"
        "print(done.exit_code, {'django.apps', 'fma_django', 'sqlite3'} & set(sys.modules))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "0 set()\n"


@pytest.mark.processes
def test_an_operator_replaces_a_key_at_the_command_line(fma_install: FmaInstall, tmp_path: Path) -> None:
    added, key, request = json.loads(fma_install.run("client", "add")), Key(), tmp_path / "request.json"
    request.write_text(json.dumps(key.request_file()))

    replaced = json.loads(fma_install.run("client", "key", added["id"], "--request", str(request)))

    assert replaced == {"id": added["id"], "before": None, "fingerprint": fingerprint(key.public)}
    for client, content, reason in (
        (added["id"], "{}", "no request of a client"),
        (added["id"], "[]", "no request of a client"),
        (added["id"], json.dumps(key.request_file())[:-1] + ', "format": 1}', "no request of a client"),
        (added["id"], json.dumps(key.request_file() | {"key_proof": "0" * 128}), "not signed"),
        ("x", json.dumps(key.request_file()), "there is no client"),
    ):
        request.write_text(content)
        done = subprocess.run(
            [*COMMAND, "client", "key", client, "--request", str(request)],
            env=fma_install.env,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, reason in done.stderr) == (1, True), done.stderr
