"""Hypothesis for the arithmetic: less than half of its usual examples, each of which computes with arrays."""

from contextlib import suppress
from importlib import import_module

import pytest
from hypothesis import settings

from fma_core import kernels

settings.register_profile("fma_core", settings.get_profile("fma"), max_examples=40)
settings.load_profile("fma_core")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Load the compiled kernels where coverage is measured: under the tracer, in a test, that takes four seconds."""
    if session.config.pluginmanager.has_plugin("_cov"):
        with suppress(ImportError):
            import_module("numba")  # first, so that it is not traced as a part of ours
        kernels.load()
