"""Every page of the admin opens, with real rows, in a constant number of queries, and shows no secret."""

import re
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.db.models import Model
from django.test import Client as Browser
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from fma_django.models import (
    Client,
    ClientAggregateScore,
    FederatedModel,
    ModelAggregate,
    ModelArtifact,
    ModelUpdate,
    Organisation,
    Round,
    Tag,
)
from tests.django.admin.conftest import SHOWN
from tests.records import WEIGHTS, make_aggregate, make_client, make_model, make_user, send_update

pytestmark = pytest.mark.django_db

EVERY = (*SHOWN, Tag, get_user_model(), Group)


def url_of(model: type[Model], page: str, *args: object) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


def queries_of(browser: Browser, url: str) -> int:
    with CaptureQueriesContext(connection) as captured:
        assert browser.get(url).status_code == 200
    return len(captured)


def test_every_model_of_the_record_is_there_but_secrets() -> None:
    ours = {model.__name__ for model in admin.site._registry if model._meta.app_label == "fma_django"}
    assert ours == {model.__name__ for model in apps.get_app_config("fma_django").get_models()} - {
        "ApiToken",
        "Disclosure",
        "EvaluationResult",
        "Forwarding",
        "IdempotencyKey",
        "Issuer",  # on the page of its organisation
        "Membership",  # on the page of its organisation
        "StoreOwnership",
        "UpdateSignature",  # on the page of its update
    }


@pytest.mark.untraced
def test_change_page_of_every_row_opens_and_shows_no_hash_of_a_credential(
    browser: Browser, rows: None
) -> None:
    hashes = list(Client.objects.values_list("credential_hash", flat=True))
    urls = [url_of(model, "change", row.pk) for model in EVERY for row in model._default_manager.all()]
    urls += [url_of(Client, "history", client.pk) for client in Client.objects.all()]
    for url in urls:
        page = browser.get(url)
        assert page.status_code == 200, url
        assert not [value for value in hashes if value in page.content.decode()], url


def test_row_that_is_not_there_is_said_to_be_so(browser: Browser) -> None:
    for model in EVERY:
        content = browser.get(url_of(model, "change", "4711"), follow=True).content.decode()
        assert "4711" in content
        assert "exist" in content


@pytest.mark.parametrize("model", [FederatedModel, Client, Organisation, Tag, get_user_model(), Group])
def test_add_page_opens(browser: Browser, model: type[Model]) -> None:
    assert browser.get(url_of(model, "add")).status_code == 200


@pytest.mark.parametrize("model", [FederatedModel, Round, Client])
def test_change_page_takes_as_many_queries_for_12_related_rows_as_for_2(
    browser: Browser, model: type[Model]
) -> None:
    experiment = make_model(requirement="require_x_updates", requirement_args=[1000])
    ann = make_client(experiment).client
    row: Any = {FederatedModel: experiment, Round: experiment.rounds.get(), Client: ann}[model]
    url = url_of(model, "change", row.pk)
    for number in range(2):
        send_update(experiment, ann, num_examples=number + 1)
    ContentType.objects.get_for_models(*apps.get_models())
    few = queries_of(browser, url)
    for number in range(10):
        send_update(experiment, ann, num_examples=number + 10)
    assert queries_of(browser, url) == few


@pytest.mark.parametrize(
    ("model", "most"), [(FederatedModel, 32), (Round, 16), (Client, 17), (ModelAggregate, 14)]
)
def test_every_part_of_a_page_is_computed_once(
    browser: Browser, rows: None, model: type[Model], most: int
) -> None:
    # The key of a client is random: of those that are there, the one with most to show.
    with_most: Any = {"organisation__isnull": False} if model is Client else {}
    row = model._default_manager.filter(**with_most).latest("pk")
    ContentType.objects.get_for_models(*apps.get_models())
    with CaptureQueriesContext(connection) as captured:
        browser.get(url_of(model, "change", row.pk))
    asked = [query["sql"] for query in captured.captured_queries]
    repeated = {sql: count for sql in asked if (count := asked.count(sql)) > 2}
    assert repeated == {}
    assert len(asked) <= most


def test_every_row_of_history_links_to_its_model(browser: Browser, rows: None) -> None:
    for model in (Round, ModelUpdate, ModelAggregate, ModelArtifact, ClientAggregateScore):
        for url in (
            url_of(model, "changelist"),
            url_of(model, "change", model._default_manager.latest("pk").pk),
        ):
            experiment = FederatedModel.objects.latest("pk")
            link = f'href="{url_of(FederatedModel, "change", experiment.pk)}">{experiment.name}</a>'
            assert link in browser.get(url).content.decode(), url


def test_no_column_hides_an_attribute_of_the_admin_itself() -> None:
    # A column called `model` once showed nonsense: the admin's own `model` stood in its place.
    for model in SHOWN:
        shown = admin.site.get_model_admin(model)
        columns = {*shown.list_display, *shown.readonly_fields}
        assert not [name for name in columns if isinstance(getattr(shown, str(name), None), type)]


def test_round_page_names_ten_updates_and_links_to_the_rest(browser: Browser) -> None:
    model = make_model(requirement="require_x_updates", requirement_args=[1000])
    for _ in range(12):
        send_update(model, make_client(model).client)
    content = browser.get(url_of(Round, "change", model.rounds.get().pk)).content.decode()
    assert len(set(re.findall(r"/modelupdate/\d+/change/", content))) == 10
    assert "The 10 latest of 12." in content


def test_no_page_shows_the_hash_of_a_password(browser: Browser) -> None:
    user = make_user()
    content = browser.get(url_of(get_user_model(), "change", user.pk)).content.decode()
    assert "md5" not in content
    assert user.password.rsplit("$", 1)[-1][:6] not in content


def test_pages_show_by_what_a_round_was_aggregated_and_what_was_kept(browser: Browser) -> None:
    model = make_model(initial_model=WEIGHTS, optimiser={"name": "fedavgm", "momentum": 0.75})
    aggregate = make_aggregate(model)

    of_model = browser.get(url_of(FederatedModel, "change", model.pk)).content.decode()
    of_round = browser.get(url_of(Round, "change", aggregate.round.pk)).content.decode()
    of_aggregate = browser.get(url_of(ModelAggregate, "change", aggregate.pk)).content.decode()

    assert 'href="/api/v1/algorithms/"' in of_model
    assert "1 at least, by its rules" in of_model
    assert "&quot;momentum&quot;: 0.75" in of_round
    assert model.artifacts.get().sha256 in of_round
    assert aggregate.state_sha256 in of_aggregate
    assert f'href="/api/v1/model_aggregates/{aggregate.pk}/state/"' in of_aggregate


def test_model_whose_plugin_is_gone_can_be_looked_at(browser: Browser) -> None:
    model = make_model()
    FederatedModel.objects.update(optimiser={"name": "exotic"})

    content = browser.get(url_of(FederatedModel, "change", model.pk)).content.decode()

    assert "optimiser &#x27;exotic&#x27; is unknown" in content


def test_metrics_are_shown_indented_and_harmless(browser: Browser, rows: None) -> None:
    update = ModelUpdate.objects.latest("pk")
    ModelUpdate.objects.filter(pk=update.pk).update(
        metrics={"loss": 0.5, "note": "<script>alert(1)</script>"}
    )
    content = browser.get(url_of(ModelUpdate, "change", update.pk)).content.decode()
    assert "{\n  &quot;loss&quot;: 0.5" in content
    assert "<script>alert(1)" not in content


def test_weights_link_leads_to_the_api(browser: Browser, rows: None) -> None:
    update = ModelUpdate.objects.latest("pk")
    content = browser.get(url_of(ModelUpdate, "change", update.pk)).content.decode()
    url = f"/api/v1/model_updates/{update.pk}/weights/"
    assert f'href="{url}"' in content
    assert browser.get(url, headers={"accept": "text/html,*/*;q=0.8"}).status_code == 200


def test_index_counts_and_links(browser: Browser, rows: None) -> None:
    make_model(allow_aggregation=False)
    cards = {card.title: card for card in browser.get(reverse("admin:index")).context["fma_cards"]}
    assert {title: card.count for title, card in cards.items()} == {
        "Active models": 1,
        "Paused models": 1,
        "Open rounds": 2,
        "Rounds being aggregated": 0,
        "Failed rounds, last 24 h": 1,
        "Workers alive": 1,
    }
    for card in cards.values():
        page = browser.get(card.url)
        assert page.status_code == 200
        assert page.context["cl"].result_count == card.count, card.title


def test_index_says_in_words_that_no_worker_runs(browser: Browser) -> None:
    assert "no worker is running: rounds wait" in browser.get(reverse("admin:index")).content.decode()
