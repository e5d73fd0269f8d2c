"""The line of a request that waited."""

from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse

from fma_api.front.marks import MAY_WAIT, WaitsFor
from fma_api.request_log import RequestLogMiddleware


def nothing_yet(request: HttpRequest) -> HttpResponse:
    response = HttpResponse(status=204)
    response.waits_for = WaitsFor(frozenset({"model:1"}), 30.0)  # type: ignore[attr-defined]
    return response


@pytest.mark.parametrize(("may_wait", "num_lines"), [(True, 0), (False, 1)])
def test_an_answer_that_is_kept_has_no_line(rf: Any, capsys: Any, may_wait: bool, num_lines: int) -> None:
    request = rf.get("/", **{MAY_WAIT: may_wait})

    RequestLogMiddleware(nothing_yet)(request)

    assert capsys.readouterr().err.count("request_finished") == num_lines
