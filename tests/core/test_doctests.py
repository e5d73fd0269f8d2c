"""The examples in docstrings: a reader copies them, so they run, one case for each docstring."""

import doctest
import importlib
import pkgutil

import pytest

import fma_connect
import fma_core
from fma_core.aggregation.aggregators import aggregators
from fma_core.aggregation.optimisers import optimisers
from fma_core.aggregation.stages import stages
from fma_core.aggregation.staleness import stalenesses
from fma_core.client_config import schedules
from fma_core.rounds.requirements import requirements
from fma_core.selection import filters, selectors

# Importing it needs an extra that the core does without.
NEEDS_AN_EXTRA = {"fma_core.kernels.compiled"}


def _examples():
    for package in (fma_core, fma_connect):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name not in NEEDS_AN_EXTRA:
                yield from doctest.DocTestFinder().find(importlib.import_module(module.name))


@pytest.mark.parametrize(
    "example", [each for each in _examples() if each.examples], ids=lambda example: example.name
)
def test_the_example_gives_what_it_says(example):
    report: list[str] = []

    doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF).run(example, out=report.append)

    assert not report, "".join(report)


def test_the_catalogue_shows_no_examples():
    kinds = (aggregators, stages, optimisers, stalenesses, requirements, filters, selectors, schedules)

    shown = [part.description for registry in kinds for part in registry.describe_all()]

    assert [text for text in shown if ">>>" in text] == []
