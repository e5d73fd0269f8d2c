"""The map of the code names files that exist, and has the slices in the order that import-linter checks."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.docs.page import REPOSITORY

PAGE = (REPOSITORY / "docs" / "explanation" / "architecture.md").read_text()
PATH = re.compile(r"`([\w.-]+(?:/[\w.-]+)*/|[\w.-]+(?:/[\w.-]+)*\.(?:py|md|toml))`")
CONTRACTS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def test_every_path_exists() -> None:
    paths = PATH.findall(PAGE)

    assert len(paths) > 50
    assert [path for path in paths if not (REPOSITORY / path).exists()] == []


@pytest.mark.parametrize(
    ("heading", "package"),
    [("The slices of fma_django", "fma_django"), ("The folders of fma_core", "fma_core")],
)
def test_the_map_has_the_layers_of_the_import_contract(heading: str, package: str) -> None:
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
    contract = next(each for each in CONTRACTS if each.get("containers") == [package])

    assert [re.findall(r"`(\w+)`", row) for row in rows] == [
        layer.split(" | ") for layer in contract["layers"]
    ]


@pytest.mark.parametrize("package", ["fma_django", "fma_core"])
def test_the_map_has_every_folder_of_the_package(package: str) -> None:
    folders = {each.parent.name for each in (REPOSITORY / package).glob("*/__init__.py")}

    assert {
        name for name in folders if f"`{name}`" not in PAGE and f"`{package}/{name}/`" not in PAGE
    } == set()
