"""The line of a request that waited."""

from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse

from fma_api.front.responses import MAY_WAIT, NothingYet
from fma_api.request_log import RequestLogMiddleware
from fma_django.updates.in_parts import begin_update
from fma_django.updates.intake import UpdateFacts
from tests.records import make_client, make_model


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


@pytest.mark.django_db
def test_the_code_of_a_problem_is_logged_beside_its_status(capsys: Any, client: Any) -> None:
    for method, path, status, code in (
        ("get", "/api/v1/models/", 401, "not_authenticated"),
        ("post", "/api/v1/model_updates/", 401, "not_authenticated"),
        ("get", "/api/v1/nowhere/", 404, "not_found"),
        ("post", "/api/schema/", 405, "method_not_allowed"),
    ):
        getattr(client, method)(path)
        line = capsys.readouterr().err.splitlines()[-1]
        assert f"status={status} code={code} " in line
    client.get("/healthz")
    line = capsys.readouterr().err.splitlines()[-1]
    assert "status=200" in line
    assert "code=" not in line


@pytest.mark.django_db
def test_the_line_of_an_upload_that_becomes_an_update_names_its_client(capsys: Any, client: Any) -> None:
    model = make_model()
    ann = make_client(model)
    upload = begin_update(model, ann.client, 1000, UpdateFacts())

    client.post(
        f"/api/v1/model_updates/?upload={upload.pk}",
        data=b"",
        content_type="application/octet-stream",
        headers={"client-uuid": str(ann.credential)},
    )

    line = capsys.readouterr().err.splitlines()[-1]
    assert f"user_id={ann.client.pk}" in line
    assert "code=upload_incomplete" in line
