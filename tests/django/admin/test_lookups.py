"""Filters in the addresses of lists: those that the page offers, and nothing of any other column."""

from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin import SimpleListFilter
from django.contrib.auth.models import User
from django.db.models import ForeignObjectRel
from django.test import Client as Browser
from django.test import RequestFactory

from fma_django.admin.themed import ModelAdmin
from fma_django.models import Client
from tests.django.admin.test_pages import url_of
from tests.records import make_client, make_model, make_user

pytestmark = pytest.mark.django_db
PAGES = sorted(admin.site._registry.items(), key=lambda page: str(page[0]))
TEXTS = ("startswith", "istartswith", "contains", "icontains", "regex", "iregex")
LOOKUPS = (*TEXTS, "gt", "gte", "lt", "lte", "in", "range")


def ids(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else ""


@pytest.fixture
def request_of_owner(rf: RequestFactory) -> Any:
    request = rf.get("/")
    request.user = make_user("owner-of-lookups", staff=True)
    return request


@pytest.mark.parametrize(("model", "page"), PAGES, ids=ids)
def test_no_column_is_guessed_letter_by_letter(model: Any, page: Any, request_of_owner: Any) -> None:
    assert isinstance(page, ModelAdmin)
    dates = {
        str(name)
        for name in (*page.list_filter, page.date_hierarchy)
        if isinstance(name, str) and "Date" in type(model._meta.get_field(name)).__name__
    }
    for field in model._meta.get_fields(include_hidden=True):
        name = field.name
        nested = []
        if field.is_relation and field.related_model is not None:
            nested = [f"{name}__{other.name}" for other in field.related_model._meta.get_fields()]
        for path in (name, *nested):
            allowed = [end for end in LOOKUPS if page.lookup_allowed(f"{path}__{end}", "a", request_of_owner)]

            assert allowed == [] or (path in dates and allowed == ["gte", "lt"]), path


@pytest.mark.parametrize(("model", "page"), PAGES, ids=ids)
def test_a_column_without_a_filter_is_not_looked_up(model: Any, page: Any, request_of_owner: Any) -> None:
    names = {_name_of(shown) for shown in page.get_list_filter(request_of_owner)}
    for field in model._meta.get_fields():
        if field.name not in names and not isinstance(field, ForeignObjectRel):
            for lookup in (
                field.name,
                f"{field.name}__exact",
                f"{field.name}__isnull",
                f"{field.name}__id__exact",
            ):
                assert not page.lookup_allowed(lookup, "1", request_of_owner), lookup


def _name_of(shown: Any) -> str:
    if isinstance(shown, type) and issubclass(shown, SimpleListFilter):
        return str(shown.parameter_name)
    return str(shown[0] if isinstance(shown, tuple) else shown)


def test_every_filter_that_a_page_offers_is_allowed(request_of_owner: Any, browser: Browser) -> None:
    make_client(make_model())
    for model, page in PAGES:
        listed = page.get_changelist_instance(request_of_owner)
        for shown in listed.filter_specs:
            for name in shown.expected_parameters():
                assert page.lookup_allowed(str(name), "1", request_of_owner), (model, name)


@pytest.mark.parametrize(
    "query", ["credential_hash__startswith=a", "subject_hash__gte=a", "invitation__token_hash__regex=a"]
)
def test_a_hash_is_not_told_by_the_list(browser: Browser, query: str) -> None:
    make_client(make_model())

    assert browser.get(f"{url_of(Client, 'changelist')}?{query}").status_code == 400


def test_a_password_is_not_told_by_the_list_of_users(browser: Browser) -> None:
    url = url_of(User, "changelist")

    assert [
        browser.get(f"{url}?{query}").status_code for query in ("email__startswith=a", "password__gt=a")
    ] == [400, 400]
    assert browser.get(f"{url}?is_active__exact=1").status_code == 200
