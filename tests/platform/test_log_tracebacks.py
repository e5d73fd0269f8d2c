"""A traceback in the log says where it happened, never what the variables held: one of them may be a credential."""

import logging
import logging.config

import pytest

from fma_api import logging as fma_logging


def fail_with(credential: str) -> None:
    raise ValueError(f"a credential of {len(credential)} characters is too short")


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_traceback_shows_no_variables(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    formatter = fma_logging.configure(level="INFO", form=form)["formatters"]["one_line"]
    logger = logging.Logger("apart")  # noqa: LOG001 - no logger that others could get by its name
    handler = logging.StreamHandler()
    handler.setFormatter(formatter["()"](**{k: v for k, v in formatter.items() if k != "()"}))
    logger.addHandler(handler)
    try:
        fail_with("".join(["hun", "ter2"]))
    except ValueError:
        logger.exception("request_failed")
    written = capsys.readouterr().err
    assert "a credential of 7 characters is too short" in written
    assert "fail_with" in written
    assert "hunter2" not in written
