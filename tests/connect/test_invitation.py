"""Invitations as clients read them: a file, a link, and what is neither."""

import json
from pathlib import Path
from typing import Any

import pytest

from fma_connect import Client
from fma_connect.__main__ import main
from fma_connect.exceptions import AwaitingApproval, InvalidArgument
from tests.connect.scripted_server import ScriptedServer, json_reply

REGISTER = "api/v1/models/3/register_client/"
TOKEN = "t0ken-of-an-invitation"


def write(path: Path, **members: Any) -> Path:
    said = {"format": 1, "server": "https://fma.example.org/", "models": [3], "token": TOKEN, **members}
    path.write_text(json.dumps(said))
    return path


@pytest.fixture
def invitation(server: ScriptedServer, tmp_path: Path) -> Path:
    server.on("POST", REGISTER, json_reply({"uuid": "s3cr3t", "id": "c-17"}))
    return write(tmp_path / "invitation.json", server=server.url)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_an_invitation_says_where_and_with_what_to_register(
    server: ScriptedServer, invitation: Path, tmp_path: Path, kind: str
) -> None:
    given = str(invitation) if kind == "file" else f"{server.url}/#invitation={TOKEN}&models=3\n"

    with Client(invitation=given, credential_file=tmp_path / "client.json", telemetry=False) as client:
        assert client.register() == "c-17"

    (seen,) = server.calls("POST", REGISTER)
    assert seen.headers["fma-invitation"] == TOKEN
    assert "idempotency-key" in seen.headers
    assert TOKEN not in repr(client) + (tmp_path / "client.json").read_text()


def test_of_several_models_one_is_named(invitation: Path, server: ScriptedServer, tmp_path: Path) -> None:
    write(invitation, server=server.url, models=[3, 4])
    options: Any = {"invitation": invitation, "credential_file": None, "telemetry": False}

    with pytest.raises(InvalidArgument, match="models 3, 4"):
        Client(**options)
    with Client(model=3, **options) as client:
        assert client.register() == "c-17"


@pytest.mark.parametrize(
    "members",
    [{"format": 2}, {"server": 3}, {"models": []}, {"models": 3}, {"models": ["3"]}, {"token": None}],
)
def test_a_damaged_file_is_refused_without_its_token(tmp_path: Path, members: dict[str, Any]) -> None:
    path = write(tmp_path / "invitation.json", **members)

    with pytest.raises(InvalidArgument, match="is damaged") as error:
        Client(invitation=path, credential_file=None)
    assert TOKEN not in str(error.value)


@pytest.mark.parametrize(
    "link",
    ["https://a.org/", "https://a.org/#invitation=", f"https://a.org/#invitation={TOKEN}&models=x"],
)
def test_a_link_that_is_cut_is_refused(link: str) -> None:
    with pytest.raises(InvalidArgument, match="copy all of it"):
        Client(invitation=link, credential_file=None)


def test_a_client_needs_an_address_or_an_invitation(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="model must be given"):
        Client("https://fma.example.org", credential_file=None)
    with pytest.raises(InvalidArgument, match="cannot be read"):
        Client(invitation=tmp_path / "none.json", credential_file=None)


def test_the_command_registers_and_writes_the_credential(
    invitation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    credential = tmp_path / "client.json"

    assert main([str(invitation), "--credential-file", str(credential)]) == 0

    assert capsys.readouterr().out == "c-17\n"
    assert json.loads(credential.read_text())["uuid"] == "s3cr3t"


def test_the_command_says_in_a_sentence_what_is_wrong(
    server: ScriptedServer, invitation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = {"code": "invalid_invitation", "detail": "the invitation is used up"}
    server.on("POST", REGISTER, json_reply(refusal, 403))

    assert main([str(invitation), "--credential-file", str(tmp_path / "c.json")]) == 1

    assert "the invitation is used up" in capsys.readouterr().err


def test_a_client_names_its_organisation_and_is_told_that_it_waits(
    server: ScriptedServer, invitation: Path
) -> None:
    server.on("GET", "api/v1/me/", json_reply({"code": "awaiting_approval", "detail": "waits"}, 403))

    with (
        Client(
            server.url, 3, credential_file=None, organisation="Universitätsklinikum", telemetry=False
        ) as client,
        pytest.raises(AwaitingApproval),
    ):
        client.me()

    (seen,) = server.calls("POST", REGISTER)
    assert json.loads(seen.body)["organisation"] == "Universitätsklinikum"
