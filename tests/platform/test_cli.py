"""Commands that run to an end, as a person types them."""

import json
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import httpx
import psycopg2
import pytest
from typer.testing import CliRunner

from fma_api.cli.application import application
from tests.servers.fma import REPOSITORY, FmaInstall, put_migrated_into
from tests.servers.free_port import free_port

pytestmark = pytest.mark.processes


@pytest.mark.parametrize(
    "command",
    [
        ["serve"],
        ["web"],
        ["worker"],
        ["manage"],
        ["user", "add"],
        ["client", "add"],
        ["store", "take-over"],
        ["verify"],
        ["demo"],
    ],
    ids=" ".join,
)
def test_help_teaches_by_example(command: list[str]) -> None:
    said = CliRunner().invoke(application, [*command, "--help"], prog_name="fma", terminal_width=100).stdout

    assert f"fma {' '.join(command)}" in said.partition("Example")[2]
    assert "--data" in said


def test_the_version_needs_no_command(fma_install: FmaInstall) -> None:
    assert fma_install.run("--version").strip() == f"fma {version('federated-model-aggregation')}"


def test_without_the_server_extra_the_command_says_what_to_install() -> None:
    without = "import sys; sys.modules['granian'] = None; from fma_api.cli import main; main()"

    done = subprocess.run([sys.executable, "-c", without, "serve"], capture_output=True, text=True)

    assert done.returncode == 1
    assert "granian is missing" in done.stderr
    assert "pip install 'federated-model-aggregation[server]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_user_can_be_added_before_the_first_start(fma_install: FmaInstall) -> None:
    fma_install.change_env({"FMA_SECRET_KEY": None})

    said = json.loads(fma_install.run("user", "add", "anna"))

    assert said.keys() == {"id", "username", "token"}
    assert said["username"] == "anna"
    assert stat.S_IMODE((fma_install.data_dir / "secret_key").stat().st_mode) == 0o600


def test_data_is_an_option_of_every_command(fma_install: FmaInstall, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    put_migrated_into(elsewhere)

    fma_install.run("user", "add", "anna", "--data", str(elsewhere))

    with sqlite3.connect(elsewhere / "fma.sqlite3") as database:
        assert database.execute("select username from auth_user").fetchall() == [("anna",)]
    assert not (fma_install.data_dir / "fma.sqlite3").exists()


def test_staff_with_a_password_may_log_in_to_the_admin(fma_install: FmaInstall) -> None:
    fma_install.migrate()
    fma_install.run("user", "add", "root", "--staff", "--password-stdin", stdin="correct horse battery\n")

    with sqlite3.connect(fma_install.data_dir / "fma.sqlite3") as database:
        [(staff, superuser, password)] = database.execute(
            "select is_staff, is_superuser, password from auth_user"
        )
    assert (staff, superuser) == (1, 1)
    assert password.startswith("pbkdf2_sha256$")


@pytest.mark.parametrize(
    ("password", "why"), [("", "no password"), ("12345\n", "too short"), ("x7" * 3000, "at most 4096")]
)
def test_a_bad_password_adds_nobody(fma_install: FmaInstall, password: str, why: str) -> None:
    fma_install.migrate()
    refused = fma_install.try_run("user", "add", "root", "--password-stdin", stdin=password)

    assert refused.returncode == 1
    assert why in refused.stderr
    with sqlite3.connect(fma_install.data_dir / "fma.sqlite3") as database:
        assert database.execute("select username from auth_user").fetchall() == []


def test_a_bad_name_is_refused(fma_install: FmaInstall) -> None:
    fma_install.migrate()
    refused = fma_install.try_run("user", "add", "anna b")

    assert refused.returncode == 1
    assert "valid username" in refused.stderr


def test_a_client_is_added_for_closed_registration(fma_install: FmaInstall) -> None:
    fma_install.migrate()
    fma_install.change_env({"FMA_REGISTRATION": "closed"})

    said = json.loads(fma_install.run("client", "add"))

    assert said.keys() == {"id", "uuid"}
    assert said["id"] != said["uuid"]


def test_a_wrong_environment_ends_with_one_line_for_each_problem(fma_install: FmaInstall) -> None:
    fma_install.change_env({"FMA_THREDS": "1", "FMA_MAX_ARRAYS": "many"})

    refused = fma_install.try_run("worker")

    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 2
    assert "nearest one is FMA_THREADS" in refused.stderr


@pytest.mark.parametrize("command", [["web"], ["worker"], ["manage", "migrate"]], ids=" ".join)
def test_what_runs_apart_never_makes_a_key_of_its_own(fma_install: FmaInstall, command: list[str]) -> None:
    fma_install.change_env({"FMA_SECRET_KEY": None})

    refused = fma_install.try_run(*command)

    assert refused.returncode == 1
    assert "FMA_SECRET_KEY (or FMA_SECRET_KEY_FILE) must be set" in refused.stderr
    assert not (fma_install.data_dir / "secret_key").exists()


@pytest.mark.parametrize("command", ["serve", "web"])
def test_a_port_in_use_is_said(fma_install: FmaInstall, command: str) -> None:
    import socket

    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        refused = fma_install.try_run(command, "--port", str(port))

    assert refused.returncode == 1
    assert f"port {port} of 127.0.0.1 is in use" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_data_folder_that_cannot_be_made_is_said(fma_install: FmaInstall, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    refused = fma_install.try_run("user", "add", "anna", "--data", str(tmp_path / "file" / "data"))

    assert refused.returncode == 1
    assert "cannot be used" in refused.stderr


@pytest.mark.parametrize("command", ["web", "worker"])
def test_a_database_that_is_not_up_to_date_stops_the_start(fma_install: FmaInstall, command: str) -> None:
    refused = fma_install.try_run(command)

    assert refused.returncode == 1
    assert refused.stderr == "fma: the database is not up to date; run: fma manage migrate\n"


def test_a_database_that_cannot_be_reached_stops_the_start(fma_install: FmaInstall) -> None:
    fma_install.change_env({"FMA_DATABASE_URL": f"postgres://fma:secret@127.0.0.1:{free_port()}/fma"})

    refused = fma_install.try_run("worker")

    assert refused.returncode == 1
    assert "the database cannot be used" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "secret" not in refused.stderr


def test_a_database_of_others_is_not_migrated_unasked(
    fma_install: FmaInstall, postgres_database: str
) -> None:
    fma_install.change_env({"FMA_DATABASE_URL": postgres_database})

    refused = fma_install.try_run("user", "add", "anna")

    assert refused.returncode == 1
    assert "run: fma manage migrate" in refused.stderr
    with closing(psycopg2.connect(postgres_database)) as connection, connection.cursor() as cursor:
        cursor.execute("select count(*) from pg_tables where schemaname = 'public'")
        assert cursor.fetchone() == (0,)


def test_migrate_makes_the_folder_and_gets_its_own_options(fma_install: FmaInstall) -> None:
    folder = fma_install.data_dir / "new"

    said = fma_install.run("manage", "--data", str(folder), "migrate", "--plan", "--verbosity", "0")

    assert "fma_django" in said
    assert (folder / "fma.sqlite3").exists()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_manage_without_a_command_shows_its_help(fma_install: FmaInstall) -> None:
    shown = fma_install.try_run("manage", "--data", str(fma_install.data_dir))

    assert shown.returncode == 2
    assert "fma manage migrate" in shown.stdout
    assert "Traceback" not in shown.stderr


def test_a_server_whose_error_stream_is_closed_answers(fma_install: FmaInstall) -> None:
    script = 'exec "$0" -m fma_api.cli "$@" <&- 2>&-'
    with FmaInstall(fma_install.data_dir, command=["bash", "-c", script, sys.executable]) as install:
        put_migrated_into(install.data_dir)
        install.env["PYTHONPATH"] = str(REPOSITORY)
        server = install.start_serve()
        server.wait_until_ready()

        answer = httpx.post(f"{server.base_url}/api/v1/models/7/register_client/", trust_env=False)

    assert answer.status_code == 404, answer.text


@pytest.mark.parametrize(
    ("command", "secret"),
    [(["user", "add", "anna"], "token"), (["client", "add"], "uuid")],
    ids=["user", "client"],
)
def test_a_secret_goes_into_a_new_file_of_this_user_and_never_over_another(
    fma_install: FmaInstall, tmp_path: Path, command: list[str], secret: str
) -> None:
    fma_install.migrate()
    out = tmp_path / "secret.json"

    printed = json.loads(fma_install.run(*command, "--out", str(out)))

    kept = json.loads(out.read_text())
    assert {**printed, secret: kept[secret]} == {**kept, "file": str(out)}
    assert secret not in printed
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    before = out.read_bytes()
    for path in (out, tmp_path / "nowhere" / "secret.json", tmp_path):
        done = fma_install.try_run(*command, "--out", str(path))
        assert (done.returncode, done.stdout) == (1, "")
        assert str(path) in done.stderr
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.glob("*secret*")] == ["secret.json"]


def test_a_file_that_is_refused_costs_no_user(fma_install: FmaInstall, tmp_path: Path) -> None:
    fma_install.migrate()
    (tmp_path / "anna.json").write_text("mine")
    assert fma_install.try_run("user", "add", "anna", "--out", str(tmp_path / "anna.json")).returncode == 1
    assert json.loads(fma_install.run("user", "add", "anna", "--out", str(tmp_path / "new.json")))["id"] == 1


def test_a_name_is_given_once_and_a_token_that_was_lost_is_printed_again_or_another_made(
    fma_install: FmaInstall,
) -> None:
    fma_install.migrate()
    added = json.loads(fma_install.run("user", "add", "anna"))

    again = fma_install.try_run("user", "add", "anna")
    assert (again.returncode, again.stdout) == (1, "")
    assert "there is a user 'anna' already" in again.stderr
    assert "fma user token anna" in again.stderr
    assert "Traceback" not in again.stderr
    assert json.loads(fma_install.run("user", "token", "anna")) == added
    other = json.loads(fma_install.run("user", "token", "anna", "--new"))
    assert other["token"] != added["token"]
    assert json.loads(fma_install.run("user", "token", "anna")) == other
    nobody = fma_install.try_run("user", "token", "bob")
    assert nobody.returncode == 1
    assert "no user 'bob'" in nobody.stderr


def test_a_further_token_has_a_name_and_limits(fma_install: FmaInstall) -> None:
    fma_install.migrate()
    added = json.loads(fma_install.run("user", "add", "anna"))
    command = ("user", "token", "anna", "--name", "backup", "--expires-in", "90d")

    said = json.loads(fma_install.run(*command))

    assert (said["id"], said["username"], said["name"]) == (added["id"], "anna", "backup")
    assert (said["scope"], said["federated_model"]) == ("read", None)
    left = datetime.fromisoformat(said["expires_on"]) - datetime.now(UTC)
    assert timedelta(days=89) < left < timedelta(days=90)
    assert said["token"] != added["token"]
    assert json.loads(fma_install.run("user", "token", "anna")) == added
    again = fma_install.try_run(*command)
    assert (again.returncode, again.stdout) == (1, "")
    assert "'backup'" in again.stderr
    assert json.loads(fma_install.run(*command, "--new", "--scope", "write"))["scope"] == "write"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--scope", "read"), "--name"),
        (("--name", "a", "--scope", "all"), "read, write, admin"),
        (("--name", "a", "--model", "7"), "no model 7"),
        (("--name", "a", "--expires-in", "soon"), "90d"),
        (("--name", "a", "--expires-in", "0d"), "90d"),
        (("--name", "login"), "logging in"),
        (("--name", ""), "--name"),
    ],
)
def test_a_further_token_that_cannot_be_is_refused(
    fma_install: FmaInstall, options: tuple[str, ...], says: str
) -> None:
    fma_install.migrate()
    fma_install.run("user", "add", "anna")

    refused = fma_install.try_run("user", "token", "anna", *options)

    assert (refused.returncode, refused.stdout) == (1, "")
    assert says in refused.stderr


def test_the_credential_of_a_client_is_rotated(fma_install: FmaInstall) -> None:
    fma_install.migrate()
    added = json.loads(fma_install.run("client", "add"))

    said = json.loads(fma_install.run("client", "rotate", added["id"]))

    assert said["id"] == added["id"]
    assert said["uuid"] != added["uuid"]
    assert timedelta() < datetime.fromisoformat(said["superseded_on"]) - datetime.now(UTC) < timedelta(days=1)
    for nobody in (added["uuid"], "ann"):
        refused = fma_install.try_run("client", "rotate", nobody)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "no client" in refused.stderr


def migrated_by_a_later_version(install: FmaInstall) -> None:
    install.migrate()
    with sqlite3.connect(install.data_dir / "fma.sqlite3") as database:
        database.execute(
            "INSERT INTO django_migrations (app, name, applied) VALUES ('fma_django', '0099_later', '2030-01-01')"
        )
    database.close()


@pytest.mark.parametrize(
    "command",
    [
        ["worker"],
        ["serve"],
        ["user", "add", "anna"],
        ["manage", "migrate"],
        ["manage", "qcluster"],
        ["manage", "shell", "-c", "print(1)"],
    ],
    ids=" ".join,
)
def test_a_database_of_a_later_version_is_refused(fma_install: FmaInstall, command: list[str]) -> None:
    migrated_by_a_later_version(fma_install)

    done = fma_install.try_run(*command, *(["--port", str(free_port())] if command == ["serve"] else []))

    assert (done.returncode, done.stdout) == (1, "")
    assert "a later version of fma (0099_later)" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["showmigrations", "fma_django"], "[X] 0001_squashed"),
        (["check"], "no issues"),
        (["help", "migrate"], "Updates database schema"),
        (["migrate", "--help"], "Updates database schema"),
        (["shell", "-h"], "--command"),
        (["--version"], "."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_person_may_look_at_a_database_of_a_later_version(
    fma_install: FmaInstall, command: list[str], said: str
) -> None:
    migrated_by_a_later_version(fma_install)

    done = fma_install.try_run("manage", *command)

    assert (done.returncode, said in done.stdout) == (0, True), done.stderr
