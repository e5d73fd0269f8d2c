"""The client for scripts written for Capital One's `fma_connect`, with the same class name.

Names, arguments, return values and behaviour are those of its version 0.0.2: one attempt per call, a timeout of ten
seconds, a new connection each time (so that a forked process may use it). It differs only where the old client failed:
an unreachable server and an answer that is not JSON raise APIException, `check_*` accept an aggregate before any was
seen, and URLs are joined with slashes on every operating system. Connection errors are a ConnectionError (hence an
OSError, as those of requests were), but not requests' own classes. Redirects are not followed, and a URL with a
password is a
ValueError: both would reveal a credential.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from fma_connect import settings
from fma_connect.exceptions import APIException, Refused, UnexpectedAnswer
from fma_connect.outgoing_json import metrics_json
from fma_connect.retry import RetryPolicy
from fma_connect.transport import Answer, Transport

__all__ = ["WebClient"]

PATIENCE_S = 10.0
# FMA's client has no limit for one call; an hour is practically none.
LONGEST_CALL_S = 3600.0
NO_AGGREGATE = -1


class WebClient:
    """A client of one federated model, which sends and receives JSON."""

    def __init__(self, federated_model_id: int, uuid: str | None = None, url: str | None = None) -> None:
        """uuid: the credential of an earlier registration; url: settings.default_url by default."""
        self._federated_model_id = federated_model_id
        self._uuid = None if uuid is None else str(uuid).strip()
        self._url = settings.default_url if url is None else url
        self._is_registered = False
        self._last_model_aggregate: int | None = None

    @property
    def uuid(self) -> str:
        """The credential; reading it registers a client that has none."""
        return self.register() if self._uuid is None else self._uuid

    @property
    def url(self) -> str:
        """The server's address, as it was given."""
        return self._url

    @property
    def federated_model_id(self) -> int:
        """The model that this client trains."""
        return self._federated_model_id

    def register(self) -> str:
        """Register with the model and return the credential; a client that has one keeps it."""
        answer = self._call("POST", self._model_path("register_client/"), accept=(200, 201))
        uuid: str = answer["uuid"]
        self._uuid = uuid
        self._is_registered = True
        return uuid

    def send_update(self, data: Any, base_aggregate: int | None = None) -> dict[str, Any]:
        """Send trained weights (JSON) and the aggregate that the training started from; return the stored update."""
        update = {"federated_model": self._federated_model_id, "data": data, "base_aggregate": base_aggregate}
        answer: dict[str, Any] = self._call("POST", "model_updates/", update, accept=(201,))
        return answer

    def check_for_new_model_aggregate(self, update_after: int | None = None) -> dict[str, Any] | None:
        """Check for a newer aggregate (`result` is the URL of its weights); None when there is none.

        An aggregate is new when it comes after `update_after`, or, without it (or with 0), after the last one that
        either check has seen.
        """
        answer = self._call("GET", self._model_path("get_latest_aggregate/"))
        return self._if_new(answer, "id", update_after)

    def get_current_artifact(self) -> dict[str, Any]:
        """The published artifact (`values` is the URL of its weights); {} when nothing is published."""
        answer: dict[str, Any] = self._call("GET", self._model_path("get_current_artifact/"))
        return answer

    def check_for_latest_model(self, update_after: int | None = None) -> dict[str, Any] | None:
        """Check for newer weights: `values`, and their `aggregate` (None for an artifact); None when there are none.

        "New" as in `check_for_new_model_aggregate`; an artifact is older than every aggregate.
        """
        answer = self._call("GET", self._model_path("get_latest_model/"))
        return self._if_new(answer, "aggregate", update_after)

    def send_val_results(self, results: Any, aggregate_id: int) -> dict[str, Any]:
        """Send this client's validation results for an aggregate; return them as stored."""
        score = {
            "validation_results": metrics_json(results, where="results"),
            "federated_model": self._federated_model_id,
            "aggregate": aggregate_id,
            "client": self._uuid,
        }
        answer: dict[str, Any] = self._call("POST", "client_aggregate_scores/", score, accept=(201,))
        return answer

    def _if_new(self, answer: dict[str, Any], key: str, update_after: int | None) -> dict[str, Any] | None:
        if not answer:
            return None
        aggregate = NO_AGGREGATE if answer[key] is None else answer[key]
        seen = self._last_model_aggregate
        # `or`, not `is None`: old scripts pass 0 for "nothing yet", and expect each aggregate once.
        threshold = update_after or seen
        is_new = threshold is None or aggregate > threshold
        if update_after and seen is not None:
            aggregate = max(aggregate, seen)
        self._last_model_aggregate = aggregate
        return answer if is_new else None

    def _model_path(self, action: str) -> str:
        return f"models/{self._federated_model_id}/{action}"

    def _call(self, method: str, path: str, body: Any = None, *, accept: tuple[int, ...] = (200,)) -> Any:
        headers = {"CLIENT-UUID": self._uuid} if self._uuid else {}
        try:
            answer: Answer = self._transport.call(
                method, f"api/v1/{path}", headers=headers, json_body=body, silence_s=PATIENCE_S
            )
            content = answer.json()
        except Refused as refused:
            raise APIException(refused.status_code, refused.message) from refused
        except UnexpectedAnswer as unexpected:
            raise APIException(None, str(unexpected)) from unexpected
        if answer.status not in accept:
            raise APIException(answer.status, content)
        return content

    @cached_property
    def _transport(self) -> Transport:
        return Transport(
            self._url, timeout_s=LONGEST_CALL_S, retry=RetryPolicy(max_attempts=1), keep_alive=False
        )
