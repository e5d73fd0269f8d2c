"""A rule in a package of its own: installed beside fma into a fresh environment, and used by name over REST."""

from __future__ import annotations

import site
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest

import fma_core
from fma_connect import Client, DeveloperClient
from fma_connect.exceptions import InvalidRequest
from tests.servers.fma import REPOSITORY, FmaInstall, StartFma

pytestmark = [pytest.mark.processes, pytest.mark.slow]

EXAMPLE = REPOSITORY / "examples" / "custom_aggregator"
WIDTH = 2.0
# Of seven clients two report nonsense.
REPORTED = np.random.default_rng(5).normal(size=(7, 40))
REPORTED[2] += 1e3
REPORTED[5, ::2] = -50


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment in which fma and the example are installed, each from its wheel."""
    folder = tmp_path_factory.mktemp("fresh")
    for project in (REPOSITORY, EXAMPLE):
        # Without isolation the build uses the hatchling that is installed here, and nothing is downloaded.
        build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
        subprocess.run(build, cwd=project, check=True, capture_output=True)
    venv.create(folder / "venv")
    python = folder / "venv" / "bin" / "python"
    # By the pip that is here: installing one more takes seven seconds.
    pip = [sys.executable, "-m", "pip", f"--python={python}", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, *folder.glob("*.whl")], check=True, capture_output=True)
    # What fma depends on is borrowed from this Python, after what is the environment's own.
    [own] = (folder / "venv").glob("lib/python*/site-packages")
    (own / "borrowed.pth").write_text("".join(f"{path}\n" for path in site.getsitepackages()))
    return python


@pytest.fixture
def install(python: Path, tmp_path: Path) -> Iterator[FmaInstall]:
    with FmaInstall(tmp_path / "fma-data", command=[str(python.with_name("fma"))]) as install:
        install.migrate()
        yield install


def test_the_example_passes_its_own_tests_where_it_is_installed(python: Path, tmp_path: Path) -> None:
    tests = tmp_path / "test_mad_filtered_mean.py"
    tests.write_text((EXAMPLE / tests.name).read_text())
    options: list[str | Path] = ["-q", "-p", "no:cacheprovider", "-p", "no:django", "--rootdir", tmp_path]
    done = subprocess.run(
        [python, "-m", "pytest", *options, tests], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_a_server_lists_it_takes_it_by_name_and_aggregates_with_it(
    install: FmaInstall, python: Path, tmp_path: Path
) -> None:
    server = install.start_serve()
    server.wait_until_ready()
    anna = install.add_user("anna")
    listed = httpx.get(f"{server.base_url}/api/v1/algorithms/", headers=anna.headers, trust_env=False).json()
    with ExitStack() as stack:
        developer = stack.enter_context(DeveloperClient(server.base_url, token=anna.token))
        model = developer.create_model(
            "robust",
            aggregator="mad_filtered_mean",
            aggregator_params={"width": WIDTH},
            requirement="require_x_updates",
            requirement_args=[len(REPORTED)],
        )["id"]
        for index, row in enumerate(REPORTED):
            client = stack.enter_context(
                Client(server.base_url, model, credential_file=tmp_path / f"{index}.json")
            )
            client.push({"w": row}, num_examples=1)
        round_ = next(developer.watch(model, after_round=0, timeout_s=60))
        assert round_["failure"] is None
        found = fma_core.read_file(developer.download(aggregate=round_["aggregate"], to=tmp_path / "result"))[
            "w"
        ]

    [mine] = [part for part in listed if part["name"] == "mad_filtered_mean"]
    assert mine["kind"] == "aggregator"
    assert mine["parameters"]["properties"]["width"]["minimum"] == 1
    np.testing.assert_allclose(found, reference(REPORTED), rtol=1e-12)
    assert _package_file(python, "fma_core").is_relative_to(python.parents[1])


def test_without_the_package_the_name_is_refused(fma_server: StartFma) -> None:
    server = fma_server(worker=False)
    token = server.install.add_user("anna").token
    with (
        DeveloperClient(server.base_url, token=token) as developer,
        pytest.raises(InvalidRequest, match="'mad_filtered_mean' is unknown") as refused,
    ):
        developer.create_model("robust", aggregator="mad_filtered_mean")
    assert refused.value.status == 400


def reference(rows: np.ndarray) -> np.ndarray:
    """Column by column, in plain Python's order of things."""
    means = []
    for column in rows.T:
        median = np.median(column)
        limit = WIDTH * 1.4826 * np.median(abs(column - median))
        means.append(np.mean([value for value in column if abs(value - median) <= limit]))
    return np.array(means)


def _package_file(python: Path, name: str) -> Path:
    program = f"import {name}; print({name}.__file__)"
    return Path(subprocess.check_output([python, "-c", program], cwd=python.parent, text=True).strip())
