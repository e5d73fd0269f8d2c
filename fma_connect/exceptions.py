"""The errors of the client library, as one tree.

    FMAConnectError
    ├── APIException            the server refused, or could not be reached (FMA's own name; WebClient raises it)
    │   ├── Refused             an answer of 400 and above: status, code, detail, fields
    │   │   ├── InvalidRequest      400, 411, 413, 415, 422 and every other 4xx: what was sent cannot be accepted;
    │   │   │                       status 0 for weights that are refused here, before any call
    │   │   ├── NotAuthenticated    401: no credential, or one that the server does not know
    │   │   ├── NotAllowed          403: a known caller who may not do this
    │   │   │   ├── AwaitingApproval    the client has registered, and nobody has approved it yet
    │   │   │   └── NotSelected         an update of a client that was not chosen for the round
    │   │   ├── NotFound            404
    │   │   ├── Conflict            409: right in itself, but not in this state
    │   │   │   ├── LateUpdate          trained for an earlier round, and the model refuses those
    │   │   │   ├── RoundFull           the round takes no more updates
    │   │   │   └── ExperimentEnded     there is no round to send it to
    │   │   ├── TooManyRequests     429, when waiting longer would pass the time limit
    │   │   └── ServerFailed        5xx, after the retries
    │   └── ConnectionFailed    no usable answer within the time limit (also a ConnectionError, hence an OSError)
    ├── InvalidArgument         an argument that cannot be meant (also a ValueError)
    ├── UnexpectedAnswer        an answer of 2xx or 3xx that is not what the API promises
    └── CredentialError         a credential file that cannot be used: open to others, damaged, of another server

No message ever carries a credential.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "APIException",
    "AwaitingApproval",
    "Conflict",
    "ConnectionFailed",
    "CredentialError",
    "ExperimentEnded",
    "FMAConnectError",
    "InvalidArgument",
    "InvalidRequest",
    "LateUpdate",
    "NotAllowed",
    "NotAuthenticated",
    "NotFound",
    "NotSelected",
    "Refused",
    "RoundFull",
    "ServerFailed",
    "TooManyRequests",
    "UnexpectedAnswer",
    "refusal",
]


class FMAConnectError(Exception):
    """The root: `except FMAConnectError` catches every error that this library raises on purpose."""


class APIException(FMAConnectError):
    """A call that the server refused, or never answered.

    status_code: the HTTP status, None when there was no answer.
    message: the parsed body of the answer, or a sentence when there is none.
    """

    def __init__(self, status_code: int | None = None, message: Any = None) -> None:
        super().__init__()
        self.status_code = status_code
        self.message = "Could not connect to the server." if message is None else message
        shown = "NULL" if status_code is None else status_code
        # Scripts written for FMA's client match on this text.
        self.error_message = f"An API error occurred (status_code={shown}): {self.message}"

    def __str__(self) -> str:
        return self.error_message


class Refused(APIException):
    """An answer of 400 or above, read as problem details (RFC 9457).

    code: the server's stable name for the reason ("shape_mismatch"); "http_<status>" when it gave none.
    detail: a sentence for people. fields: every other member of the body, field lists (`{"name": [why]}`) included.
    retry_after_s: the seconds to wait before the next attempt, if the server gave them.
    """

    def __init__(
        self,
        status: int = 0,
        *,
        code: str = "",
        detail: str = "",
        fields: Mapping[str, Any] | None = None,
        message: Any = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(status or None, message)
        self.status = status
        self.code = code
        self.detail = detail
        self.fields = dict(fields or {})
        self.retry_after_s = retry_after_s
        sentences = ((name, _in_words(why)) for name, why in self.fields.items())
        reasons = "; ".join(f"{name}: {why}" for name, why in sentences if why not in detail)
        what = f"{status} {code}".strip() if status or not code else code
        self.error_message = ": ".join(part for part in (what, detail, reasons) if part)

    @property
    def is_of_the_server(self) -> bool:
        """Whether the answer has the form of the API's refusals; a proxy answers with a page, or JSON of its own."""
        return isinstance(self.message, Mapping) and not self.message.keys().isdisjoint(("code", "detail"))


class InvalidRequest(Refused):
    """A request that cannot be accepted as it is; sending it again will not help.

    status: 0 when nothing was sent, because these are not valid weights: a NaN, an object, a value that int8 cannot
    hold.
    """


class NotAuthenticated(Refused):
    """A call without a credential, or with one that the server does not know (any more)."""


class NotAllowed(Refused):
    """A call of a known caller without the permission for it."""


class NotFound(Refused):
    """An object that does not exist, or not for this caller."""


class Conflict(Refused):
    """A valid request that the current state of the object does not allow."""


class AwaitingApproval(NotAllowed):
    """A call of a client that has registered, and waits until somebody of the server approves it."""


class NotSelected(NotAllowed):
    """An update of a client that was not chosen for the round; `join_once` says when to ask again."""


class LateUpdate(Conflict):
    """An update for an earlier round, which the model's policy refuses."""


class RoundFull(Conflict):
    """An update for a round that accepts no more updates; another round will follow."""


class ExperimentEnded(Conflict):
    """A call for an experiment that has ended."""


class TooManyRequests(Refused):
    """A call for which the server requires a longer pause than the time limit allows."""


class ServerFailed(Refused):
    """A call in which the server, or a proxy before it, failed in every attempt."""


class ConnectionFailed(APIException, ConnectionError):
    """A call without a usable answer within the time limit."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(None, message)
        if message is not None:
            self.error_message = message


class InvalidArgument(FMAConnectError, ValueError):
    """An argument that cannot be meant; the message names it. Most are found before anything is sent."""


class UnexpectedAnswer(FMAConnectError):
    """A successful answer that is not what the API promises."""


class CredentialError(FMAConnectError):
    """A credential file that cannot be used; the message says why."""


_BY_STATUS: dict[int, type[Refused]] = {
    401: NotAuthenticated,
    403: NotAllowed,
    404: NotFound,
    409: Conflict,
    429: TooManyRequests,
}
_BY_CODE: dict[tuple[int, str], type[Refused]] = {
    (403, "awaiting_approval"): AwaitingApproval,
    (403, "not_selected"): NotSelected,
    (409, "late_update"): LateUpdate,
    (409, "round_full"): RoundFull,
    (409, "experiment_ended"): ExperimentEnded,
}
_STANDARD_MEMBERS = frozenset({"type", "title", "status", "detail", "code", "instance"})
_LONGEST_DETAIL = 300


def refusal(status: int, body: Any, *, retry_after_s: float | None = None) -> Refused:
    """The error of an answer: `body` is the parsed JSON, or the text when it was not JSON."""
    members: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    own = {name: value for name, value in members.items() if name not in _STANDARD_MEMBERS}
    # Field lists are also under "errors", because a standard member may have the name of a field.
    lists = own.pop("errors", {}) if isinstance(own.get("errors"), Mapping) else {}
    detail = members.get("detail") or members.get("title") or ("" if members else _in_words(body))
    code = str(members.get("code") or f"http_{status}")
    by_status = _BY_STATUS.get(status, ServerFailed if status >= 500 else InvalidRequest)
    return _BY_CODE.get((status, code), by_status)(
        status,
        code=code,
        detail=_in_words(detail)[:_LONGEST_DETAIL],
        fields={**own, **lists},
        message=body,
        retry_after_s=retry_after_s,
    )


def _in_words(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(_in_words(item) for item in value)
    return str(value)
