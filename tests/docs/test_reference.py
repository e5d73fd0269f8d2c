"""The reference has every endpoint, error code, command, part and public name (settings: tests/platform)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from drf_spectacular.generators import SchemaGenerator

import fma_connect
import fma_core
from fma_api import problems
from fma_api.algorithms import KINDS, TITLES, as_markdown
from fma_api.cli.application import application
from fma_connect import exceptions
from fma_core.errors import FMAError
from fma_core.parameters import parameters_of
from fma_core.rounds.policy import RoundPolicy
from tests.docs.page import REPOSITORY

REFERENCE = REPOSITORY / "docs" / "reference"
API = (REFERENCE / "api.md").read_text()
ROW = re.compile(r"^\| (\d{3}) \| (`[^|]+`) \|", re.MULTILINE)


def test_every_endpoint_is_in_the_reference_and_no_other() -> None:
    paths = SchemaGenerator().get_schema(request=None, public=True)["paths"]  # type: ignore[no-untyped-call]
    exist = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    written = set(re.findall(r"^\| `([A-Z]+ /api\S*)` \|", API, re.MULTILINE))
    assert written == exist


def test_every_error_code_is_in_the_reference_with_its_status() -> None:
    written = {
        (int(status), code) for status, codes in ROW.findall(API) for code in re.findall(r"`(\w+)`", codes)
    }
    of_rounds = re.findall(r"`(\w+)`", API.split("codes are met on failed rounds only:")[1])
    for kind in raised_kinds():
        assert kind.code in of_rounds or (problems.status_of(kind("")), kind.code) in written, kind


def test_every_command_and_option_is_in_the_reference() -> None:
    page = (REFERENCE / "command.md").read_text()
    for name, command in commands(typer.main.get_command(application), "fma"):
        assert f"\n## {name}\n" in page, name
        section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        for parameter in command.params:
            for option in parameter.opts:
                assert not option.startswith("--") or option == "--help" or option in section, (name, option)


@pytest.mark.parametrize(
    "name",
    [
        *fma_connect.__all__,
        *exceptions.__all__,
        *fma_core.__all__,
    ],
)
def test_every_public_name_is_in_the_reference(name: str) -> None:
    assert f"`{name}`" in (REFERENCE / "python.md").read_text()


def test_the_page_of_algorithms_is_the_one_that_the_registries_write() -> None:
    page = (REFERENCE / "algorithms.md").read_text()
    assert page == as_markdown(), "run: python -m fma_api.algorithms > docs/reference/algorithms.md"


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_part_is_in_the_reference(kind: str) -> None:
    page = (REFERENCE / "algorithms.md").read_text()
    section = page.split(f"\n## {TITLES[kind][0]}\n")[1].split("\n## ")[0]
    assert [name for name in KINDS[kind].names() if f"\n### `{name}`\n" not in section] == []


@pytest.mark.parametrize("client", [fma_connect.Client, fma_connect.DeveloperClient, fma_connect.WebClient])
def test_every_method_of_the_clients_is_in_the_reference(client: type) -> None:
    page = (REFERENCE / "python.md").read_text()
    methods = [name for name, member in vars(client).items() if callable(member) and name[0] != "_"]
    assert [name for name in methods if f"`{name}`" not in page] == []


def raised_kinds(kind: type[FMAError] = FMAError) -> Iterator[type[FMAError]]:
    """The kinds of error that are raised as such: the leaves of the tree."""
    following = [child for child in kind.__subclasses__() if not child.__name__.startswith("_")]
    if not following and kind.__module__.startswith("fma_"):
        yield kind
    for child in following:
        yield from raised_kinds(child)


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    following = getattr(command, "commands", {})  # a group's
    for child in following:
        yield from commands(following[child], f"{name} {child}")
    if not following:
        yield name, command


def test_every_member_of_the_round_policy_is_in_the_reference_with_its_default() -> None:
    for name, parameter in parameters_of(RoundPolicy).items():
        default = "null" if parameter.default is None else parameter.default
        assert f"| `{name}` | {default} | {parameter.description} |" in API
