"""The distribution: what is in the wheel, and what works with the base install alone."""

import subprocess
import sys
import tomllib
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from fma_connect.version import __version__

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("fma_core", "fma_django", "fma_api", "fma_connect")
# What the base install brings: the dependencies of pyproject.toml, and theirs.
BASE = (
    "numpy",
    "ml_dtypes",
    "safetensors",
    "backports",
    "httpx",
    "httpcore",
    "h11",
    "anyio",
    "sniffio",
    "idna",
    "certifi",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # Without isolation the build uses the hatchling that is installed here, and nothing is downloaded.
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    [built] = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_four_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}

    assert tops == {*PACKAGES, f"federated_model_aggregation-{__version__}.dist-info"}
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests")]
    for package in PACKAGES:
        sources = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / package).rglob("*.py")}
        assert sources <= set(names)


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [path] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(path).decode())

    assert metadata["Name"] == "federated-model-aggregation"
    assert metadata["License-Expression"] == "Apache-2.0"
    extras = {"server", "postgres", "s3", "redis", "dask", "fast", "torch", "testing", "bench", "demo", "dev"}
    extras |= {"plot", "mlflow", "tensorboard", "oidc"}
    assert extras == set(metadata.get_all("Provides-Extra", []))


def test_the_base_install_is_small() -> None:
    dependencies = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]

    assert sorted(name.split(">")[0] for name in dependencies) == [
        "backports.zstd",
        "cryptography",
        "httpx",
        "ml_dtypes",
        "numpy",
        "safetensors",
        "threadpoolctl",
    ]


@pytest.mark.slow
def test_the_base_install_computes_and_connects_and_names_what_the_server_needs(
    wheel: Path, tmp_path: Path
) -> None:
    import importlib.util

    venv.create(tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    # By the pip that is here: installing one more takes seven seconds.
    pip = [sys.executable, "-m", "pip", f"--python={python}", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, wheel], check=True, capture_output=True)
    # The base dependencies are borrowed from this Python, so that the test needs no network.
    [site] = (tmp_path / "venv").glob("lib/python*/site-packages")
    for name in BASE:
        found = importlib.util.find_spec(name)
        if found and found.submodule_search_locations:
            [origin] = found.submodule_search_locations
            (site / name).symlink_to(origin)
            if (libraries := Path(f"{origin}.libs")).exists():
                (site / libraries.name).symlink_to(libraries)
    if (extensions := importlib.util.find_spec("typing_extensions")) and extensions.origin:
        (site / "typing_extensions.py").symlink_to(extensions.origin)

    works = subprocess.run(
        [python, "-c", "import fma_core, fma_connect"], cwd=tmp_path, capture_output=True, text=True
    )
    refused = subprocess.run([python.with_name("fma")], cwd=tmp_path, capture_output=True, text=True)

    assert works.returncode == 0, works.stderr
    assert refused.returncode == 1
    assert "pip install 'federated-model-aggregation[server]'" in refused.stderr
