import pickle
from typing import Any

import pytest

from fma_connect import exceptions
from fma_connect.exceptions import APIException, ConnectionFailed, FMAConnectError, Refused, refusal


def test_every_error_is_exported_and_has_the_root() -> None:
    classes = [getattr(exceptions, name) for name in exceptions.__all__ if name != "refusal"]

    assert all(issubclass(cls, FMAConnectError) for cls in classes)


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "InvalidRequest"),
        (401, "NotAuthenticated"),
        (403, "NotAllowed"),
        (404, "NotFound"),
        (409, "Conflict"),
        (413, "InvalidRequest"),
        (422, "InvalidRequest"),
        (429, "TooManyRequests"),
        (500, "ServerFailed"),
        (503, "ServerFailed"),
    ],
)
def test_status_chooses_the_class(status: int, name: str) -> None:
    assert type(refusal(status, {})).__name__ == name


@pytest.mark.parametrize(
    ("status", "code", "name", "branch"),
    [
        (403, "not_selected", "NotSelected", "NotAllowed"),
        (409, "late_update", "LateUpdate", "Conflict"),
        (409, "round_full", "RoundFull", "Conflict"),
        (409, "experiment_ended", "ExperimentEnded", "Conflict"),
    ],
)
def test_code_chooses_a_narrower_class(status: int, code: str, name: str, branch: str) -> None:
    error = refusal(status, {"code": code, "detail": "why"})

    assert type(error).__name__ == name
    assert isinstance(error, getattr(exceptions, branch))


def test_code_of_another_status_chooses_nothing() -> None:
    assert type(refusal(400, {"code": "late_update"})).__name__ == "InvalidRequest"


def test_problem_details_become_attributes() -> None:
    body = {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "detail": "2 fields are wrong",
        "code": "invalid",
        "name": ["This field is required."],
    }

    error = refusal(400, body, retry_after_s=3)

    assert (error.status, error.code, error.detail) == (400, "invalid", "2 fields are wrong")
    assert error.fields == {"name": ["This field is required."]}
    assert error.retry_after_s == 3
    assert error.message == body
    assert str(error) == "400 invalid: 2 fields are wrong: name: This field is required."


def test_field_lists_are_told_once() -> None:
    body: dict[str, Any] = {"code": "invalid", "detail": "wrong", "name": ["too long"]}
    body |= {"errors": {"name": ["too long"], "status": ["unknown"]}}

    assert refusal(400, body).fields == {"name": ["too long"], "status": ["unknown"]}


def test_page_of_a_proxy_is_a_detail() -> None:
    error = refusal(502, "<html>Bad Gateway</html>")

    assert error.code == "http_502"
    assert error.detail == "<html>Bad Gateway</html>"


def test_text_of_the_old_exception_is_kept() -> None:
    assert (
        str(APIException(404, {"detail": "no"}))
        == "An API error occurred (status_code=404): {'detail': 'no'}"
    )
    assert str(APIException()) == "An API error occurred (status_code=NULL): Could not connect to the server."


def test_connection_failed_is_an_os_error() -> None:
    assert issubclass(ConnectionFailed, ConnectionError)
    assert str(ConnectionFailed("no answer")) == "no answer"
    assert "NULL" in str(ConnectionFailed())


@pytest.mark.parametrize(
    "error", [APIException(404, {"a": 1}), refusal(422, {"code": "x"}), ConnectionFailed("no answer")]
)
def test_errors_cross_process_borders(error: APIException) -> None:
    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.status_code == error.status_code


def test_bare_refusal_is_readable() -> None:
    assert str(Refused()) == "0"
