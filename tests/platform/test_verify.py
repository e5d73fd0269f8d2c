"""`fma verify` on a real data folder."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fma_django.experiments.changes import create_federated_model
from fma_django.models import ModelAggregate, ModelUpdate
from tests.records import make_user
from tests.servers.fma import COMMAND, REPOSITORY, FmaInstall

pytestmark = pytest.mark.processes

# Rounds of one model: three clients' updates each, aggregated as the worker does it.
FILL = """
import sys
from tests.records import *
strategy = {"mean": {}, "fedadam": {"optimiser": {"name": "fedadam"}}}
for name in sys.argv[1:]:
    model = make_model(make_user(), name=name, initial_model=WEIGHTS, requirement="require_x_updates",
                       requirement_args=[3], **strategy[name])
    clients = [make_client(model).client for _ in range(3)]
    published = 0
    for number in range(2):
        for value, client in enumerate(clients, start=number + 1):
            send_update(model, client, weights(value), num_examples=value, base_aggregate=published)
        published = aggregate_now(model)
    print(model.pk)
"""


MEAN, FEDADAM, TWIN = "1", "2", "3"  # ids; the twin has the name of the first


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with models of two published rounds each."""
    with FmaInstall(tmp_path_factory.mktemp("filled") / "fma-data") as install:
        install.migrate()
        code = f"import sys, django; sys.path.insert(0, {str(REPOSITORY)!r}); django.setup()\n{FILL}"
        done = subprocess.run(
            [COMMAND[0], "-c", code, "mean", "fedadam", "mean"],
            env={**install.env, "DJANGO_SETTINGS_MODULE": "fma_api.settings"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [MEAN, FEDADAM, TWIN]
        return install.data_dir


@pytest.fixture
def install(fma_install: FmaInstall, filled: Path) -> FmaInstall:
    shutil.copytree(filled, fma_install.data_dir, dirs_exist_ok=True)
    return fma_install


def verify(install: FmaInstall, *arguments: str) -> subprocess.CompletedProcess[str]:
    return install.try_run("verify", *arguments, limit_s=120)


def updates_of(install: FmaInstall, number: int) -> list[Path]:
    """The files of a round's updates, of all models."""
    with install.database():
        updates = ModelUpdate.objects.filter(round__number=number).order_by("pk")
        names = list(updates.values_list("sha256", flat=True))
    return [install.data_dir / "storage" / "blobs" / name[:2] / name for name in names]


def change_last_byte(path: Path) -> None:
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x01
    path.write_bytes(content)


def test_published_aggregates_are_what_their_updates_give(install: FmaInstall) -> None:
    newest = verify(install, MEAN)
    first = verify(install, "fedadam", "--round", "1")

    assert (newest.returncode, newest.stderr) == (0, "")
    assert f"model {MEAN} ('mean'), round 2, 3 updates" in newest.stdout
    assert newest.stdout.endswith("equal: the published aggregate is what its updates give\n")
    assert "state" not in newest.stdout
    assert first.returncode == 0, first.stderr
    assert f"model {FEDADAM} ('fedadam'), round 1, 3 updates" in first.stdout
    assert "state computed" in first.stdout


def test_programs_read_one_line(install: FmaInstall) -> None:
    said: dict[str, Any] = json.loads(verify(install, FEDADAM, "--json").stdout)

    assert (said["model"], said["name"], said["round"], said["num_updates"]) == (
        int(FEDADAM),
        "fedadam",
        2,
        3,
    )
    assert said["result"] == "equal"
    assert said["published"] == said["computed"]
    assert all(len(value) == 64 for value in said["published"].values())


def test_a_changed_byte_of_a_stored_update_is_found(install: FmaInstall) -> None:
    change_last_byte(updates_of(install, 2)[2])  # the only one whose bytes no update of the first round has

    changed, before = verify(install, MEAN), verify(install, MEAN, "--round", "1")

    assert changed.returncode == 1
    assert "Traceback" not in changed.stderr
    assert "is no longer what it was when it was stored" in changed.stderr
    assert before.returncode == 0, before.stderr


def test_an_aggregate_that_its_updates_do_not_give_has_an_exit_code_of_its_own(install: FmaInstall) -> None:
    with install.database():
        second, first = ModelAggregate.objects.filter(federated_model=int(MEAN)).order_by("-pk")
        ModelAggregate.objects.filter(pk=second.pk).update(sha256=first.sha256)

    told, said = verify(install, MEAN), verify(install, MEAN, "--json")

    assert (told.returncode, said.returncode) == (3, 3), told.stderr
    assert told.stdout.endswith("different: the published aggregate is not what the stored updates give\n")
    assert json.loads(said.stdout)["result"] == "different"


def test_an_update_that_is_gone_is_said(install: FmaInstall) -> None:
    updates_of(install, 2)[0].unlink()

    told, said = verify(install, MEAN), verify(install, MEAN, "--json")

    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith("fma: not verified: ")
    assert "Traceback" not in told.stderr
    assert said.returncode == 1
    found = json.loads(said.stdout)
    assert (found["result"], found["code"]) == ("not_verified", "not_verifiable")


def test_what_cannot_be_verified_is_said(install: FmaInstall) -> None:
    for arguments, expected in (
        ([MEAN, "--round", "9"], f"model {MEAN} has no round 9"),
        ([MEAN, "--round", "3"], "round 3 of model"),
        (["mean"], f"2 models are named 'mean'; say which by its id: {MEAN}, {TWIN}"),
        (["4711"], "there is no model whose id or name is '4711'"),
        (["9" * 50], "there is no model"),
        ([MEAN, "--data", str(install.data_dir / "elsewhere")], "there is no record in the data folder"),
    ):
        refused = verify(install, *arguments)
        assert (refused.returncode, refused.stdout) == (1, ""), arguments
        assert expected in refused.stderr
        assert "Traceback" not in refused.stderr
    assert not (install.data_dir / "elsewhere").exists()


def test_a_model_without_a_published_round_has_nothing_to_verify(install: FmaInstall) -> None:
    with install.database():
        create_federated_model(developer=make_user("alice"), name="new", aggregator="mean")

    refused = verify(install, "new")

    assert refused.returncode == 1
    assert "has no published round" in refused.stderr


def test_it_works_while_the_server_runs(install: FmaInstall) -> None:
    install.start_serve().wait_until_ready()

    assert verify(install, MEAN).returncode == 0
