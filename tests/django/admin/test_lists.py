"""Lists of the admin: what they find, filter and sort, and in how many queries."""

from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.test import Client as Browser
from django.urls import reverse

from fma_django.models import Client, ModelUpdate, Round
from tests.django.admin.conftest import SHOWN, add_rows
from tests.django.admin.test_pages import EVERY, queries_of, url_of
from tests.records import WEIGHTS, aggregate_now, make_client, make_model, send_update, weights

pytestmark = pytest.mark.django_db


def assert_lists(page: Any) -> ChangeList:
    """Assert that a list was opened and that its rows can be read."""
    assert page.status_code == 200, page.request
    changelist: ChangeList = page.context_data["cl"]
    assert len(changelist.result_list) <= changelist.result_count
    return changelist


def test_every_empty_list_opens(browser: Browser) -> None:
    for model in admin.site._registry:
        assert browser.get(url_of(model, "changelist")).status_code == 200, model


def test_every_list_opens_and_shows_no_hash_of_a_credential(browser: Browser, rows: None) -> None:
    hashes = list(Client.objects.values_list("credential_hash", flat=True))
    for model in EVERY:
        page = browser.get(url_of(model, "changelist"))
        assert page.status_code == 200, model
        assert page.context["cl"].result_count == model._default_manager.count()
        assert not [value for value in hashes if value in page.content.decode()], model


@pytest.mark.usefixtures("rows", "unrendered")
def test_every_search_opens(browser: Browser) -> None:
    for words in ("experiment", "1", "3f", "100% 'of' \"it\""):
        for model in SHOWN:
            assert_lists(browser.get(url_of(model, "changelist"), {"q": words}))


def test_search_finds_a_client_by_its_id(browser: Browser, rows: None) -> None:
    client = make_client().client
    page = browser.get(url_of(Client, "changelist"), {"q": str(client.pk)})
    assert list(page.context["cl"].result_list) == [client]


def test_search_finds_rounds_by_the_words_of_a_failure(browser: Browser, rows: None) -> None:
    page = browser.get(url_of(Round, "changelist"), {"q": "overflowed"})
    assert {found.state for found in page.context["cl"].result_list} == {"failed"}
    assert "non_finite_result: array &#x27;w&#x27; overflowed float32" in page.content.decode()


@pytest.mark.usefixtures("rows", "unrendered")
def test_every_choice_of_every_filter_opens(browser: Browser) -> None:
    add_rows(1)  # a filter by a row is shown from two on
    for model in SHOWN:
        changelist = assert_lists(browser.get(url_of(model, "changelist")))
        assert changelist.filter_specs, model
        for spec in changelist.filter_specs:
            # What is chosen already is the list that was just opened.
            for choice in [each for each in spec.choices(changelist) if not each["selected"]]:
                assert_lists(browser.get(url_of(model, "changelist") + choice["query_string"]))


@pytest.mark.usefixtures("rows", "unrendered")
def test_every_column_sorts(browser: Browser) -> None:
    for model in SHOWN:
        columns = assert_lists(browser.get(url_of(model, "changelist"))).list_display
        by_all = ".".join(f"-{number}" for number in range(len(columns)))
        shown = assert_lists(browser.get(url_of(model, "changelist"), {"o": by_all}))
        sortable = [name for name in columns if shown.get_ordering_field(name)]
        assert len(shown.queryset.query.order_by) >= len(sortable), model


@pytest.mark.parametrize("value", ["x", "0", "99999999999999999999"])
def test_link_to_a_row_that_is_not_there_is_no_error(browser: Browser, rows: None, value: str) -> None:
    page = browser.get(url_of(ModelUpdate, "changelist"), {"client": value, "round": value}, follow=True)
    assert page.status_code == 200


def test_every_list_and_the_index_take_as_many_queries_for_5_rows_as_for_2(browser: Browser) -> None:
    lists = {model: url_of(model, "changelist") for model in (*SHOWN, get_user_model())}
    urls = [*lists.values(), reverse("admin:index")]
    add_rows(2)
    ContentType.objects.get_for_models(*apps.get_models())  # which are cached from here on
    few = {url: queries_of(browser, url) for url in urls}
    add_rows(3)
    assert min(model._default_manager.count() for model in lists) >= 5
    assert {url: queries_of(browser, url) for url in urls} == few


def test_updates_show_their_verdict_and_are_filtered_by_it(browser: Browser) -> None:
    model = make_model(initial_model=WEIGHTS, aggregator="krum", aggregator_params={"f": 0},
                       requirement="require_x_updates", requirement_args=[3])  # fmt: skip
    for value in (1.0, 2.0, 900.0):
        send_update(model, make_client(model).client, weights(value), base_aggregate=0)
    aggregate_now(model)

    page = browser.get(url_of(ModelUpdate, "changelist"), {"verdict__exact": "rejected"})

    assert page.context["cl"].result_count == 2
    assert "rejected by krum" in page.content.decode()
    of_client = browser.get(url_of(Client, "change", ModelUpdate.objects.latest("pk").client_id))
    assert "rejected by krum" in of_client.content.decode()
