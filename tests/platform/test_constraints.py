"""The files that `make lock` writes, against pyproject.toml."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
LOWEST = {"python_version": "3.11", "python_full_version": "3.11.0"}
PYTHONS = [LOWEST, *({"python_version": f"3.{n}", "python_full_version": f"3.{n}.0"} for n in (12, 13, 14))]


def requirements(extra: str | None = None) -> Iterator[Requirement]:
    """The requirements of an extra or of the base install; an extra's own extras are followed."""
    for line in PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]:
        requirement = Requirement(line)
        if requirement.name != PROJECT["name"]:
            yield requirement
        for other in requirement.extras if requirement.name == PROJECT["name"] else ():
            yield from requirements(other)


def pinned(file: str, python: dict[str, str]) -> dict[str, Requirement]:
    lines = (REPOSITORY / file).read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    return {
        canonicalize_name(pin.name): pin for pin in pins if pin.marker is None or pin.marker.evaluate(python)
    }


@pytest.mark.parametrize(
    ("file", "python"),
    [("constraints-lowest.txt", LOWEST), *(("constraints.txt", python) for python in PYTHONS)],
    ids=lambda value: value if isinstance(value, str) else value["python_version"],
)
def test_each_requirement_has_a_version_that_it_allows(file: str, python: dict[str, str]) -> None:
    pins = pinned(file, python)

    for requirement in (*requirements(), *requirements("dev")):
        if requirement.marker is None or requirement.marker.evaluate(python):
            name = canonicalize_name(requirement.name)
            assert name in pins, f"{requirement} is not in {file}: run `make lock`"
            [version] = pins[name].specifier
            assert version.operator == "=="
            assert requirement.specifier.contains(version.version), f"{requirement}: run `make lock`"


def test_torch_is_left_to_who_installs_it() -> None:
    assert "torch" not in pinned("constraints.txt", LOWEST)
