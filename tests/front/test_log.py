"""The line of a request that waited."""

from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse

from fma_api.front.responses import MAY_WAIT, NothingYet
from fma_api.request_log import RequestLogMiddleware


def nothing_yet(request: HttpRequest) -> HttpResponse:
    return NothingYet(topics=["model:1"], seconds=30.0, status=204)


@pytest.mark.parametrize(("may_wait", "num_lines"), [(True, 0), (False, 1)])
def test_an_answer_that_is_kept_has_no_line(rf: Any, capsys: Any, may_wait: bool, num_lines: int) -> None:
    request = rf.get("/", **{MAY_WAIT: may_wait})

    RequestLogMiddleware(nothing_yet)(request)

    assert capsys.readouterr().err.count("request_finished") == num_lines


def test_what_a_client_measured_is_not_logged(rf: Any, capsys: Any) -> None:
    request = rf.post(
        "/api/v1/model_updates/?federated_model=3&metrics=%7B%22loss%22%3A0.123%7D&num_examples=4"
    )

    RequestLogMiddleware(lambda _: HttpResponse())(request)

    line = capsys.readouterr().err
    assert "?federated_model=3&metrics=…&num_examples=4" in line
    assert "0.123" not in line
