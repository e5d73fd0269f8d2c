"""The life of an experiment in the admin: its states, its history, who is asked, going back and going on."""

from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client as Browser
from django.urls import reverse

from fma_django.experiments.changes import change_federated_model
from fma_django.experiments.lifecycle import cancel_experiment
from fma_django.models import Client, ConfigVersion, FederatedModel, ModelAggregate, Organisation, Round, Tag
from tests.django.admin.test_pages import url_of
from tests.records import WEIGHTS, make_aggregate, make_client, make_model

pytestmark = pytest.mark.django_db


def press(browser: Browser, row: Any, button: str) -> Any:
    """Ask for an action of a page, and say yes."""
    url = reverse(f"admin:fma_django_{row._meta.model_name}_{button}", args=[row.pk])
    assert url in browser.get(url_of(type(row), "change", row.pk)).content.decode()
    assert browser.get(url).status_code == 200
    return browser.post(url, {"confirmed": "yes"}, follow=True)


def test_an_experiment_is_started_ended_and_started_again(browser: Browser) -> None:
    model = make_model(allow_aggregation=False)
    for button, state in (("start_this", "running"), ("end_this", "ended"), ("start_this", "running")):
        press(browser, model, button)
        assert FederatedModel.objects.get().state == state


def test_what_has_ended_offers_no_more_than_to_begin_again(browser: Browser) -> None:
    model = make_model()
    cancel_experiment(model)
    page = browser.get(url_of(FederatedModel, "change", model.pk)).content.decode()
    for button in ("pause_this", "resume_this", "cancel_this", "end_this"):
        assert f"/{button}/" not in page
    assert "cancelled" in page


def test_ended_experiments_are_found_by_their_state(browser: Browser) -> None:
    ended, running = make_model(), make_model()
    cancel_experiment(ended)
    for state, row in (("ended", ended), ("active", running)):
        page = browser.get(url_of(FederatedModel, "changelist"), {"state": state})
        assert list(page.context["cl"].result_list) == [row]


def test_a_clone_belongs_to_whoever_made_it(browser: Browser, admin_user: User) -> None:
    model = make_model(initial_model=WEIGHTS)
    page = press(browser, model, "clone_this")
    made = FederatedModel.objects.latest("pk")
    assert "experiment (clone) is made" in page.content.decode()
    assert (made.developer, made.state, made.seed) == (admin_user, "created", model.seed)


def test_a_model_is_rewound_on_the_page_of_an_aggregate(browser: Browser) -> None:
    model = make_model()
    first, second = make_aggregate(model), make_aggregate(model)
    page = press(browser, first, "rewind_this")
    restored = ModelAggregate.objects.latest("pk")
    assert (restored.parent, restored.sha256) == (first, first.sha256)
    assert f"goes on from {first}" in page.content.decode()
    refused = press(browser, second, "rewind_this")
    assert "was abandoned" in refused.content.decode()


def test_the_page_of_a_model_shows_what_changed(browser: Browser, admin_user: User) -> None:
    model = make_model()
    change_federated_model(model, {"round_policy": {"goal": 3}, "aggregator": "median"}, by=admin_user)
    page = browser.get(url_of(FederatedModel, "change", model.pk)).content.decode()
    assert "aggregator, round_policy" in page
    assert "operator" in page
    version = ConfigVersion.objects.latest("pk")
    shown = browser.get(url_of(ConfigVersion, "change", version.pk)).content.decode()
    assert "&quot;before&quot;: &quot;mean&quot;" in shown


def test_a_round_shows_who_was_chosen_and_why_not(browser: Browser) -> None:
    model = make_model(
        initial_model=WEIGHTS,
        allow_aggregation=False,
        selector={"name": "random"},
        round_policy={"goal": 1, "over_selection": 1, "deadline_s": 600},
    )
    for _ in range(2):
        make_client(model)
    press(browser, model, "start_this")
    page = browser.get(url_of(Round, "change", model.rounds.get().pk)).content.decode()
    assert "chose 1 of 2 eligible clients" in page
    assert "not chosen" in page


def test_a_client_is_given_a_name_an_organisation_and_tags(browser: Browser) -> None:
    model = make_model(
        selector={"name": "random"},
        eligibility=[{"name": "tags", "all_of": ["ct"]}],
        round_policy={"goal": 1},
    )
    ann = make_client(model).client
    said = {
        "name": "scanner 3",
        "organisation": Organisation.objects.create(name="North").pk,
        "tags": [Tag.objects.create(name="ct").pk],
        "federated_models": [model.pk],
    }
    browser.post(url_of(Client, "change", ann.pk), said)
    page = browser.get(url_of(Client, "changelist"), {"q": "scanner"}).content.decode()
    assert "scanner 3" in page
    assert "North" in page
    # The round waited for a client with this tag.
    assert model.rounds.get().participations.get(is_chosen=True).client == ann


@pytest.mark.parametrize(("name", "ok"), [("gpu", True), ("two words", False), ("", False)])
def test_a_tag_is_one_word(browser: Browser, name: str, ok: bool) -> None:
    browser.post(url_of(Tag, "add"), {"name": name})
    assert Tag.objects.exists() == ok


def test_an_organisation_has_members(browser: Browser, admin_user: User) -> None:
    role = Group.objects.get(name="auditor")
    said = {"name": "North", "memberships-0-user": admin_user.pk, "memberships-0-role": role.pk}
    forms = {"memberships-TOTAL_FORMS": 1, "memberships-INITIAL_FORMS": 0}
    forms |= {"issuers-TOTAL_FORMS": 0, "issuers-INITIAL_FORMS": 0}
    browser.post(url_of(Organisation, "add"), {**said, **forms})
    assert list(Organisation.objects.get().members.all()) == [admin_user]
    assert admin_user.memberships.get().role == role
