"""Errors that nobody catches, in the form of the log: a raw traceback among lines of JSON is a line that breaks."""

import logging
import multiprocessing.context
import sys
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

import structlog

log = structlog.get_logger(__name__)


def log_uncaught() -> None:
    """Log what threads, the interpreter, warnings and forked processes would print; once in a process is enough."""
    logging.captureWarnings(True)
    sys.excepthook = _of_main
    threading.excepthook = _of_thread
    sys.unraisablehook = _of_nobody
    process = multiprocessing.context.ForkProcess
    if not hasattr(process.run, "__wrapped__"):
        process.run = _logged(process.run)  # type: ignore[assignment, method-assign]


def _logged(run: Callable[[Any], None]) -> Callable[[Any], None]:
    # multiprocessing prints a traceback by itself, and asks no hook.
    @wraps(run)
    def logged(process: Any) -> None:
        try:
            run(process)
        except Exception:
            log.exception("process_failed", process=process.name)
            sys.exit(1)

    return logged


def _of_main(kind: type[BaseException], error: BaseException, traceback: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    log.error("uncaught", exc_info=(kind, error, traceback))


def _of_thread(failed: threading.ExceptHookArgs) -> None:
    thread = "" if failed.thread is None else failed.thread.name
    error = failed.exc_value or failed.exc_type()
    log.error("thread_failed", thread=thread, exc_info=(failed.exc_type, error, failed.exc_traceback))


def _of_nobody(failed: Any) -> None:
    error = failed.exc_value or failed.exc_type(failed.err_msg)
    log.error(
        "uncaught", of=repr(failed.object)[:200], exc_info=(failed.exc_type, error, failed.exc_traceback)
    )
