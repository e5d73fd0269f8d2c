"""`algorithms/`: every registered part, and what a program needs to know to offer it."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from jsonschema import Draft202012Validator
from rest_framework.test import APIClient

from fma_api.algorithms import KINDS, catalogue
from fma_core import registry as registry_module
from fma_core.aggregation.aggregators import Aggregator, aggregators
from tests.api.callers import API

ALGORITHMS = f"{API}algorithms/"
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _as_after_a_start() -> Iterator[None]:
    catalogue.cache_clear()
    yield
    catalogue.cache_clear()


def listed(caller: APIClient, name: str, **query: str) -> dict[str, Any]:
    [found] = [part for part in caller.get(ALGORITHMS, query).json() if part["name"] == name]
    return dict(found)


def test_every_registered_part_is_listed(owner: APIClient) -> None:
    found = [(part["kind"], part["name"]) for part in owner.get(ALGORITHMS).json()]

    assert found == [(kind, name) for kind, registry in KINDS.items() for name in registry.names()]
    assert {kind for kind, _ in found} == {
        "aggregator",
        "filter",
        "optimiser",
        "requirement",
        "schedule",
        "selector",
        "stage",
        "staleness",
    }


def test_every_part_can_be_used_and_says_what_it_is(owner: APIClient) -> None:
    for part in owner.get(ALGORITHMS).json():
        assert part["error"] is None, part
        assert part["description"], part
        assert part["source"] or part["kind"] == "requirement", part
        Draft202012Validator.check_schema(part["parameters"])


@pytest.mark.parametrize("kind", list(KINDS))
def test_parts_filter_by_kind(owner: APIClient, kind: str) -> None:
    answer = owner.get(ALGORITHMS, {"kind": kind})

    assert [part["name"] for part in answer.json()] == list(KINDS[kind].names())
    assert {part["kind"] for part in answer.json()} == {kind}


@pytest.mark.parametrize("kind", ["aggregators", "Stage", "x" * 5000, "\x00"])
def test_an_unknown_kind_is_refused(owner: APIClient, kind: str) -> None:
    answer = owner.get(ALGORITHMS, {"kind": kind})

    assert answer.status_code == 400
    assert answer.json()["kind"]


def test_parameters_come_with_their_range_default_and_meaning(owner: APIClient) -> None:
    beta = listed(owner, "trimmed_mean")["parameters"]["properties"]["beta"]

    assert (beta["type"], beta["minimum"], beta["exclusiveMaximum"], beta["default"]) == (
        "number",
        0,
        0.5,
        0.1,
    )
    assert beta["description"]


def test_the_least_number_of_updates_is_a_formula(owner: APIClient) -> None:
    assert listed(owner, "krum")["minimum"] == "2·f + 3"


def test_an_aggregator_says_what_it_goes_together_with(owner: APIClient) -> None:
    assert listed(owner, "fedasync")["goes_with"] == {
        "update_kinds": ["weights"],
        "required_metrics": [],
        "payloads": [],
        "takes_staleness": True,
        "takes_optimiser": False,
        "takes_clipped_rows": False,
        "takes_mixed_rows": False,
    }
    assert listed(owner, "scaffold")["goes_with"]["payloads"] == ["control"]
    assert listed(owner, "fednova")["goes_with"]["required_metrics"] == ["num_steps"]


def test_a_stage_says_what_it_changes(owner: APIClient) -> None:
    found = {part["name"]: part["changes"] for part in owner.get(ALGORITHMS, {"kind": "stage"}).json()}

    assert (found["only"], found["clip_norm"], found["nnm"]) == ("arrays", "clipped_rows", "mixed_rows")
    assert listed(owner, "only")["goes_with"] is None


def test_filters_and_selectors_say_what_they_take(owner: APIClient) -> None:
    q = listed(owner, "poisson", kind="selector")["parameters"]["properties"]["q"]

    assert (q["type"], q["exclusiveMinimum"], q["maximum"]) == ("number", 0, 1)
    assert listed(owner, "charging", kind="filter")["parameters"]["properties"]["if_unknown"] == {
        "enum": ["refuse", "accept"],
        "description": "whether to refuse or accept a client that never reported the fact",
        "default": "refuse",
    }


def test_the_list_asks_the_database_for_the_caller_only(owner: APIClient) -> None:
    with CaptureQueriesContext(connection) as captured:
        owner.get(ALGORITHMS)

    assert len(captured) <= 1


@dataclass(frozen=True)
class Loudest(Aggregator[Any]):
    """The update with the largest norm."""

    def combine(self, block: Any, decision: Any) -> Any:
        return block.row(0)


def test_the_part_of_a_plugin_is_listed(owner: APIClient) -> None:
    with aggregators.register_temporarily("loudest", Loudest):
        found = listed(owner, "loudest")

    assert found["description"] == "The update with the largest norm."
    assert (found["source"], found["minimum"], found["error"]) == ("", "1", None)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An entry point that cannot be loaded; what this gives grows with each attempt to do so."""
    made: list[str] = []

    class Broken(EntryPoint):
        def load(self) -> Any:
            made.append(self.name)
            raise ImportError("libexotic.so.1 is not there")

    point = Broken("exotic", "exotic.rules:Exotic", "fma.aggregators")
    monkeypatch.setattr(
        registry_module, "entry_points", lambda group: [point] if group == "fma.aggregators" else []
    )
    monkeypatch.setattr(aggregators, "_entry_points", None)
    return made


def test_a_plugin_that_cannot_be_loaded_is_listed_with_its_error(
    owner: APIClient, attempts: list[str]
) -> None:
    found = listed(owner, "exotic")

    assert "exotic.rules:Exotic" in found["error"]
    assert "libexotic.so.1 is not there" in found["error"]
    assert (found["parameters"], found["goes_with"]) == (None, None)
    assert listed(owner, "mean")["error"] is None


def test_a_plugin_that_cannot_be_loaded_is_tried_once(owner: APIClient, attempts: list[str]) -> None:
    for _ in range(3):
        owner.get(ALGORITHMS)

    assert attempts == ["exotic"]
