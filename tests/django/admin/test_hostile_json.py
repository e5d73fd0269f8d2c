"""JSON that nobody can keep, in the forms of the admin: said at its field, never a 500."""

from typing import Any

import pytest
from django import forms
from django.contrib import admin
from django.db.models import JSONField
from django.test import Client as Browser
from django.test import RequestFactory
from django.urls import reverse

from fma_django.admin.federated_models import JSON_FIELDS
from fma_django.admin.json_field import StorableJSONField
from fma_django.models import FederatedModel
from tests.records import make_model

pytestmark = pytest.mark.django_db

DEEP = 100_000
KEPT_BY_NO_RECORD = {
    "brackets": "[" * DEEP + "]" * DEEP,
    "braces": '{"a":' * DEEP + "1" + "}" * DEEP,
    "unclosed": "[" * DEEP,
    "66 levels": "[" * 66 + "]" * 66,
    "infinite": '{"a": 1e999}',
    "minus infinite": "[-1e999]",
    "long exponent": "[1e" + "9" * 10_000 + "]",
    "Infinity": '{"a": Infinity}',
    "NaN": "[NaN]",
    "surrogate": '{"a": "\\ud800"}',
    "surrogate as a name": '{"\\udfff": 1}',
    "NUL": '{"a": "\\u0000"}',
    "NUL as a name": '{"a\\u0000": 1}',
    "NUL itself": '{"a": "\x00"}',
    "beyond 64 bits": f"[{2**64}]",
    "long integer": '{"a": ' + "9" * 5_000 + "}",
    "longer integer": "-" + "9" * 100_000,
    "a word": "word",
    "half": '{"a": ',
}
OF_ANOTHER_SHAPE = ["0.5", '["mean"]', '{"a": 1}', '[{"name": []}]']
NAMES = [field.name for field in JSON_FIELDS]


@pytest.fixture
def quiet(browser: Browser) -> Browser:
    """A browser to which a defect of the server is an answer, as to anybody's."""
    browser.raise_request_exception = False
    return browser


def post(browser: Browser, page: str, model: FederatedModel, said: dict[str, str]) -> Any:
    url = reverse(f"admin:fma_django_federatedmodel_{page}", args=[model.pk] if page == "change" else [])
    usual = {
        "name": "n",
        "developer": str(model.developer_id),
        "aggregator": "mean",
        "update_kind": "weights",
    }
    numbers = {"furthest_base_agg": "1", "base_aggregate_required": ""}
    return browser.post(url, {**usual, **numbers, **said})


@pytest.mark.parametrize(
    ("page", "said"),
    [*(("change", said) for said in KEPT_BY_NO_RECORD), ("add", "surrogate"), ("add", "brackets")],
)
def test_json_that_no_record_keeps_is_an_error_of_its_field(quiet: Browser, page: str, said: str) -> None:
    model = make_model()

    answer = post(quiet, page, model, dict.fromkeys(NAMES, KEPT_BY_NO_RECORD[said]))

    assert answer.status_code == 200
    errors = answer.context["adminform"].form.errors
    assert set(NAMES) <= errors.keys()
    for name in NAMES:
        assert errors[name][0].startswith("This must be JSON: ")
    assert FederatedModel.objects.count() == 1


@pytest.mark.parametrize("said", OF_ANOTHER_SHAPE, ids=lambda text: text[:12])
def test_json_of_another_shape_is_no_failure(quiet: Browser, unrendered: None, said: str) -> None:
    model = make_model()

    statuses = {name: post(quiet, "change", model, {name: said}).status_code for name in NAMES}

    assert set(statuses.values()) <= {200, 302}, statuses


def test_the_page_of_a_refused_form_shows_the_row_whatever_was_sent(quiet: Browser) -> None:
    model = make_model()

    for said in ("0.5", "true", '"text"', "[1]", '{"a": 1}'):
        answer = post(quiet, "change", model, dict.fromkeys(NAMES, said))

        assert answer.status_code == 200, said
        assert answer.context["adminform"].form.errors


def test_every_page_has_fields_of_this_kind_for_json() -> None:
    request = RequestFactory().get("/")
    seen = 0
    for page in admin.site._registry.values():
        for db_field in page.model._meta.concrete_fields:
            if isinstance(db_field, JSONField):
                assert isinstance(page.formfield_for_dbfield(db_field, request), StorableJSONField), page
                seen += 1
    assert seen > len(NAMES)


def test_what_must_hold_is_said_once_and_plainly() -> None:
    for text, said in (
        ("[1e999]", "it must be JSON without NaN and Infinity"),
        ('["\\u0000"]', "it may not hold the NUL character (\\u0000)"),
        ("[1", "Expecting ',' delimiter at line 1, column 3"),
        ("9" * 5000, "it may not hold integers beyond 64 bits"),
    ):
        with pytest.raises(forms.ValidationError) as raised:
            StorableJSONField().clean(text)
        assert raised.value.messages == [f"This must be JSON: {said}."]
