"""The places of the version agree, as RELEASING.md says."""

from __future__ import annotations

import re
import tomllib

from fma_connect.version import __version__
from tests.docs.page import REPOSITORY


def test_the_places_of_the_version_agree() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    changelog = (REPOSITORY / "CHANGELOG.md").read_text()

    newest = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", changelog, re.MULTILINE)[0]

    assert project["version"] == __version__ == newest
    assert changelog.count("\n## [Unreleased]\n") == 1
