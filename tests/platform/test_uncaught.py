"""With FMA_LOG_FORMAT=json every line on standard error is JSON, whatever goes wrong."""

import json
import subprocess
import sys

import pytest

BEGIN = """
import gc, logging.config, multiprocessing, threading, warnings
from fma_api import logging as fma_logging
logging.config.dictConfig(fma_logging.configure(level="INFO", form="json"))
def fail(*_): raise ValueError("of no use")
class Broken:
    def __del__(self): fail()
"""


@pytest.mark.parametrize(
    ("broken", "event"),
    [
        ("fail()", "uncaught"),
        ("t = threading.Thread(target=fail, name='clock'); t.start(); t.join()", "thread_failed"),
        ("Broken(); gc.collect()", "uncaught"),
        ("warnings.warn('old', DeprecationWarning, stacklevel=1)", "of no use|old"),
        (
            "p = multiprocessing.get_context('fork').Process(target=fail); p.start(); p.join(); assert p.exitcode == 1",
            "process_failed",
        ),
    ],
)
def test_an_error_that_nobody_catches_is_a_line_of_json(broken: str, event: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", BEGIN + broken], capture_output=True, text=True, timeout=60
    )

    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert lines
    assert any(word in json.dumps(lines) for word in event.split("|"))
