"""The OpenAPI document: valid, complete, and true."""

import re
from typing import Any

import pytest
from django.core.management import call_command
from django.urls import clear_script_prefix, set_script_prefix
from jsonschema import Draft202012Validator
from rest_framework.test import APIClient

from fma_api.documentation import SchemaView
from tests.api.test_permissions import EXPECTED

DOCUMENTED = {
    (method, path) for method, path in EXPECTED if path.startswith(("/api/v1/", "/api-token-auth/"))
}


@pytest.fixture
def document(anonymous: APIClient) -> dict[str, Any]:
    answer = anonymous.get("/api/schema/", headers={"accept": "application/vnd.oai.openapi+json"})
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.untraced
def test_the_document_is_made_without_a_warning(tmp_path: Any) -> None:
    call_command("spectacular", validate=True, fail_on_warn=True, file=str(tmp_path / "schema.yaml"))


@pytest.mark.django_db
@pytest.mark.parametrize("form", ["json", "yaml"])
def test_the_document_is_made_once_for_all_callers(
    anonymous: APIClient, owner: APIClient, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    first = anonymous.get("/api/schema/", {"format": form})
    monkeypatch.setattr(SchemaView, "generator_class", None)

    second = owner.get("/api/schema/", {"format": form})

    assert second.content == first.content
    assert second["Content-Type"] == first["Content-Type"]
    assert second["Content-Disposition"] == f'inline; filename="fma.{form}"'


@pytest.mark.django_db
@pytest.mark.parametrize("prefix", ["", "/hospitals/fma"])
def test_the_document_names_the_prefix_of_the_request(anonymous: APIClient, prefix: str) -> None:
    set_script_prefix(f"{prefix}/")
    try:
        document = anonymous.get("/api/schema/", {"format": "json"}).json()
    finally:
        clear_script_prefix()

    assert document.get("servers") == ([{"url": prefix}] if prefix else None)


@pytest.mark.django_db
def test_the_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


@pytest.mark.django_db
def test_the_document_has_every_route_and_no_other(document: dict[str, Any]) -> None:
    found = {
        (
            method.upper(),
            re.sub(
                r"\{(\w+)\}",
                lambda m: f"<{m[1] if m[1] in ('number', 'user', 'issuer', 'account') else 'pk'}>",
                path,
            ),
        )
        for path, methods in document["paths"].items()
        for method in methods
    }

    assert found == DOCUMENTED


@pytest.mark.django_db
def test_every_operation_says_what_it_does_and_how_it_fails(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation.get("summary") or operation.get("description"), (method, path)
            failures = [status for status in operation["responses"] if status.startswith(("4", "d"))]
            assert failures, (method, path)


@pytest.mark.django_db
def test_the_pages_of_the_documentation_are_served_from_here(anonymous: APIClient) -> None:
    answer = anonymous.get("/api/docs/")

    page = answer.content.decode()
    assert answer.status_code == 200
    assets = re.findall(r'(?:src|href)="([^"]+\.(?:js|css|png))"', page)
    assert assets
    assert all(asset.startswith("/static/") for asset in assets)
    for asset in assets:
        served = anonymous.get(asset)
        assert served.status_code == 200
        served.close()


@pytest.mark.django_db
def test_weights_may_be_elsewhere(document: dict[str, Any]) -> None:
    with_redirect = {
        path
        for path, methods in document["paths"].items()
        if "307" in methods.get("get", {}).get("responses", {})
    }
    weights = {
        path for path in document["paths"] if path.endswith(("/weights/", "/state/", "/get_latest_model/"))
    }

    assert weights <= with_redirect
    assert "/api/v1/models/" not in with_redirect
    redirect = document["paths"]["/api/v1/model_updates/{id}/weights/"]["get"]["responses"]["307"]
    assert redirect["headers"]["Location"]["schema"]["format"] == "uri"
