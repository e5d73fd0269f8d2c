"""A real browser, which no package of Python brings."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.servers.missing import missing

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@contextmanager
def chromium() -> Iterator["Browser"]:
    """Start Chromium; skip the test where it is not installed, and WITHOUT_CHROMIUM says that it cannot be."""
    playwright = pytest.importorskip("playwright.sync_api")

    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        if "WITHOUT_CHROMIUM" in os.environ:
            pytest.skip("Chromium cannot be installed here")
        missing("Chromium is not installed (apt-get install chromium)")
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=program, args=arguments)
        yield launched
        launched.close()
