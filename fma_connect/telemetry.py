"""Telemetry: a client reports facts about its device from time to time, without disturbing its other calls.

docs/reference/telemetry.md lists every field. `telemetry=False` of a client, or FMA_TELEMETRY=off in its environment,
switches it off.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import traceback as tracebacks
from collections.abc import Callable, Mapping
from typing import Any

from fma_connect.device_facts import SECTIONS, Facts, facts_of_this_device
from fma_connect.exceptions import APIException, InvalidArgument, InvalidRequest, NotFound
from fma_connect.outgoing_json import positive_int, to_json
from fma_connect.transport import Transport

__all__ = ["REPORT_EVERY_S", "Telemetry", "is_switched_off"]

logger = logging.getLogger("fma_connect")

REPORT_EVERY_S = 15 * 60.0
TEST_SPEED_EVERY_S = 24 * 3600.0
SPEED_TEST_BYTES = 256 * 1024
NUM_PINGS = 3
# The time limit of a report, and of each half of a speed test.
PATIENCE_S = 5.0
# A report may take this share of the time that a call has left.
MOST_OF_A_PROMISE = 0.25
MOST_MBPS = 1e6

LONGEST_MESSAGE = 2000
LONGEST_TRACEBACK = 8000
REPORTS = "api/v1/clients/me/telemetry/"
ERRORS = "api/v1/clients/me/errors/"
SPEED_TEST = "api/v1/clients/me/speed-test/"


def is_switched_off() -> bool:
    """Whether the environment switches telemetry off."""
    return os.environ.get("FMA_TELEMETRY", "").strip().lower() in ("off", "false", "no", "0")


class Telemetry:
    """Sends a report when one is due. It never raises an error of a report.

    who: gives the headers that identify the client; called only when something is sent.
    """

    def __init__(self, transport: Transport, who: Callable[[], Mapping[str, str]], *, is_on: bool) -> None:
        self.is_on = is_on and not is_switched_off()
        self._transport = transport
        self._who = who
        self._told: Facts = {}
        self._line: dict[str, float] = {}
        self._next_report_at = -float("inf")
        self._next_test_at = -float("inf")
        self._lock = threading.Lock()

    def describe(self, facts: Mapping[str, Mapping[str, Any]]) -> None:
        """Add facts to the next report, which is due now, and to all later ones.

        Raises InvalidArgument for a section that does not exist and for a fact without JSON.
        """
        for section, fields in facts.items():
            if section not in SECTIONS:
                raise InvalidArgument(
                    f"telemetry has the sections {', '.join(SECTIONS)}; there is no {section!r}"
                )
            if not isinstance(fields, Mapping):
                raise InvalidArgument(f"{section} must be a mapping of fields to facts; got {fields!r:.100}")
            # Converted now: what has no JSON is the caller's fault, and would cost all later reports.
            self._told[section] = {**self._told.get(section, {}), **to_json(fields, where=section)}
        self._next_report_at = -float("inf")

    def report_if_due(self) -> None:
        """Send a report, unless one was sent recently or another thread is sending one."""
        if not self.is_on or self._transport.clock() < self._next_report_at:
            return
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._next_report_at = self._transport.clock() + REPORT_EVERY_S
            with self._transport.within_share(MOST_OF_A_PROMISE):
                self._report()
        except NotFound:
            self.is_on = False
            logger.info("telemetry_off reason=%s", "the server takes none")
        except InvalidRequest as error:
            logger.warning("telemetry_refused reason=%s", error)
        except APIException as error:
            logger.debug("telemetry_failed cause=%r", error)
        except Exception as error:  # noqa: BLE001 - a report never stops the training
            logger.warning("telemetry_failed cause=%r", error)
        finally:
            self._lock.release()

    def report_error(
        self, error: BaseException | str, message: str, *, model: int, round: int | None, traceback: bool
    ) -> bool:
        """Report an error; return whether the server has stored it."""
        if not self.is_on:
            return False
        code = _code(error)
        try:
            body: dict[str, Any] = {"code": code, "federated_model": model}
            if message:
                body["message"] = str(message)[:LONGEST_MESSAGE]
            if round is not None:
                body["round"] = positive_int(round, "round")
            if traceback and isinstance(error, BaseException):
                # The end of a traceback has the error.
                body["traceback"] = "".join(tracebacks.format_exception(error))[-LONGEST_TRACEBACK:]
            self._transport.call("POST", ERRORS, headers=self._who(), json_body=body, timeout_s=PATIENCE_S)
        except Exception as failure:  # noqa: BLE001 - nor does the report of an error
            logger.warning("error_not_reported code=%s cause=%s", code, failure)
            return False
        return True

    def _report(self) -> None:
        body = facts_of_this_device()
        if self._told.get("connectivity", {}).get("is_unmetered") is not False:
            self._test_line()
        body["connectivity"] = dict(self._line)
        for section, fields in self._told.items():
            body[section] = {**body.get(section, {}), **fields}
        self._transport.call("POST", REPORTS, headers=self._who(), json_body=body, timeout_s=PATIENCE_S)

    def _test_line(self) -> None:
        ping_s = min(self._seconds("GET") for _ in range(NUM_PINGS))
        self._line["ping_ms"] = ping_s * 1000
        if self._transport.clock() < self._next_test_at:
            return
        self._next_test_at = self._transport.clock() + TEST_SPEED_EVERY_S
        for name, method in (("download_mbps", "GET"), ("upload_mbps", "POST")):
            taken_s = self._seconds(method, SPEED_TEST_BYTES)
            # The round trip does not count, unless it was nearly the whole time.
            moving_s = taken_s - ping_s if taken_s > 2 * ping_s else taken_s
            if moving_s > 0:
                self._line[name] = min(SPEED_TEST_BYTES * 8 / 1e6 / moving_s, MOST_MBPS)

    def _seconds(self, method: str, size: int = 0) -> float:
        body = os.urandom(size) if method == "POST" else None
        params = {"bytes": size} if method == "GET" else None
        headers = self._who()
        began = self._transport.clock()
        self._transport.call(
            method, SPEED_TEST, params=params, headers=headers, body=body, timeout_s=PATIENCE_S
        )
        return self._transport.clock() - began


def _code(error: BaseException | str) -> str:
    """The code of an error: for an exception, the name of its class. Its text may contain a path or a value."""
    if isinstance(error, BaseException):
        error = type(error).__name__
    return re.sub(r"[^A-Za-z0-9_.-]", "_", str(error))[:64] or "error"
