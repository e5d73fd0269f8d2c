"""A form that was opened before somebody else changed the row overwrites nothing."""

import re
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client as Browser

from fma_django.clients.registration import describe_client
from fma_django.experiments.changes import change_federated_model
from fma_django.experiments.lifecycle import pause, resume
from fma_django.models import Client, FederatedModel, Organisation, Tag
from tests.django.admin.test_pages import url_of
from tests.records import make_client, make_model, make_user

pytestmark = pytest.mark.django_db


def sent_by(page: Any) -> dict[str, Any]:
    """The fields that a browser sends when the form of the page is saved without a change."""
    form = page.context["adminform"].form
    sent = {}
    for name, field in form.fields.items():
        value = form[name].value()
        if hasattr(field.widget, "decompress"):
            for number, part in enumerate(field.widget.decompress(value)):
                sent[f"{name}_{number}"] = "" if part is None else part
        elif value is True:
            sent[name] = "on"
        elif value not in (None, False):
            sent[name] = [getattr(one, "pk", one) for one in value] if isinstance(value, list) else value
    for inline in page.context["inline_admin_formsets"]:
        management = inline.formset.management_form
        sent |= {management.add_prefix(name): management[name].value() for name in management.fields}
    carried = re.search(r'name="started_from" value="([^"]*)"', page.content.decode())
    assert carried, "the page does not carry what it started from"
    return sent


def errors_of(page: Any) -> dict[str, Any]:
    assert page.status_code == 200, "it was saved"
    return dict(page.context["adminform"].form.errors)


@pytest.mark.parametrize("was_paused", [True, False])
def test_saving_another_field_leaves_the_state_that_somebody_chose_meanwhile(
    browser: Browser, was_paused: bool
) -> None:
    model = make_model(allow_aggregation=not was_paused)
    url = url_of(FederatedModel, "change", model.pk)
    opened = sent_by(browser.get(url))
    (resume if was_paused else pause)(model)

    # A browser that opened the page before an upgrade still sends the box.
    browser.post(url, {**opened, "allow_aggregation": "" if was_paused else "on", "name": "renamed"})

    changed = FederatedModel.objects.get()
    assert (changed.name, changed.allow_aggregation) == ("renamed", was_paused)


def test_a_stale_form_of_a_model_is_refused_with_what_changed(browser: Browser) -> None:
    model = make_model(client_config={"epochs": 1})
    url = url_of(FederatedModel, "change", model.pk)
    opened = sent_by(browser.get(url))
    change_federated_model(model, {"client_config": {"epochs": 5}, "requirement_args": []})

    errors = errors_of(browser.post(url, {**opened, "name": "renamed"}))

    assert sorted(errors) == ["__all__", "client_config"]
    assert '"epochs": 5' in errors["client_config"][0]
    assert FederatedModel.objects.get().name == model.name
    assert FederatedModel.objects.get().client_config == {"epochs": 5}
    assert browser.post(url, {**sent_by(browser.get(url)), "name": "renamed"}).status_code == 302
    assert FederatedModel.objects.get().name == "renamed"


def test_a_form_that_nobody_overtook_is_saved_unchanged_and_changed(browser: Browser) -> None:
    model = make_model(
        client_config={"a": [1, 2.5, None, "ü"]}, round_policy={"goal": 3}, furthest_base_agg=2
    )
    url = url_of(FederatedModel, "change", model.pk)
    for name in (model.name, "two", "three"):
        assert browser.post(url, {**sent_by(browser.get(url)), "name": name}).status_code == 302
    assert FederatedModel.objects.get().name == "three"
    assert FederatedModel.objects.get().client_config == model.client_config


def test_a_stale_form_of_a_client_is_refused(browser: Browser) -> None:
    north, south = (Organisation.objects.create(name=name) for name in ("North", "South"))
    tag = Tag.objects.create(name="ct")
    model, other = make_model(), make_model()
    ann = make_client(model).client
    describe_client(ann, name="ann", organisation=north, tags=[])
    url = url_of(Client, "change", ann.pk)
    opened = sent_by(browser.get(url))
    describe_client(ann, name="ann", organisation=south, tags=[tag])
    other.clients.add(ann)

    errors = errors_of(browser.post(url, {**opened, "name": "anna"}))

    assert sorted(errors) == ["__all__", "federated_models", "organisation", "tags"]
    assert "South" in errors["organisation"][0]
    ann.refresh_from_db()
    assert (ann.name, ann.organisation, ann.tags.get()) == ("ann", south, tag)
    assert set(ann.federated_models.all()) == {model, other}


def test_a_stale_form_of_a_user_lets_nobody_in_again(browser: Browser) -> None:
    user = make_user("erik")
    url = url_of(User, "change", user.pk)
    opened = sent_by(browser.get(url))
    User.objects.filter(pk=user.pk).update(is_active=False)
    assert "is_active" in errors_of(browser.post(url, {**opened, "email": "erik@example.org"}))
    assert not User.objects.get(pk=user.pk).is_active


@pytest.mark.parametrize("model", [Organisation, Tag, Group])
def test_a_stale_form_of_every_other_page_is_refused(browser: Browser, model: Any) -> None:
    row = model.objects.create(name="North")
    url = url_of(model, "change", row.pk)
    opened = sent_by(browser.get(url))
    model.objects.filter(pk=row.pk).update(name="South")
    assert sorted(errors_of(browser.post(url, {**opened, "name": "East"}))) == ["__all__", "name"]
    assert browser.post(url, {**sent_by(browser.get(url)), "name": "East"}).status_code == 302


def test_one_click_takes_a_client_out_of_one_model_alone(browser: Browser) -> None:
    models = [make_model(name=f"experiment {number}") for number in range(3)]
    ann = make_client(models[0]).client
    for model in models[1:]:
        model.clients.add(ann)
    tags = [Tag.objects.create(name=name) for name in ("ct", "mr")]
    describe_client(ann, name="", organisation=None, tags=tags)

    content = browser.get(url_of(Client, "change", ann.pk)).content.decode()

    for field, rows in (("federated_models", models), ("tags", tags)):
        assert not re.search(rf'<select[^>]*name="{field}"', content)
        for row in rows:  # each has a box of its own
            box = re.search(rf'<input[^>]*name="{field}"[^>]*value="{row.pk}"[^>]*>', content)
            assert box
            assert 'type="checkbox"' in box[0]
            assert "checked" in box[0]


def test_no_page_chooses_rows_in_a_list_where_one_click_drops_the_others(
    browser: Browser, rows: None
) -> None:
    for model in (Client, Organisation, Tag, FederatedModel):
        for url in (url_of(model, "add"), url_of(model, "change", model.objects.latest("pk").pk)):
            for select in re.findall(r"<select[^>]*multiple[^>]*>", browser.get(url).content.decode()):
                assert "admin-autocomplete" in select, (url, select)


@pytest.mark.parametrize("row_id", ["9" * 19, "9" * 30, "9" * 5000, "0", "x", "_5F"])
def test_a_form_of_no_model_is_answered_like_its_page(browser: Browser, row_id: str) -> None:
    url = url_of(FederatedModel, "change", row_id)

    assert browser.post(url, {"name": "x"}).status_code == browser.get(url).status_code == 302


@pytest.mark.parametrize("carried", ["[" * 50_000, '{"a":' * 50_000, "[]", "1", "x", "9" * 5000])
def test_what_no_page_has_carried_is_no_failure(browser: Browser, carried: str) -> None:
    model = make_model()
    url = url_of(FederatedModel, "change", model.pk)

    sent = {**sent_by(browser.get(url)), "started_from": carried, "name": "renamed"}

    assert browser.post(url, sent).status_code == 302
    assert FederatedModel.objects.get().name == "renamed"


def test_json_that_is_nested_too_deeply_is_an_error_of_its_field(browser: Browser) -> None:
    url = url_of(FederatedModel, "change", make_model().pk)
    nested = {"client_config": '{"a":' * 50_000, "round_policy": "[" * 50_000}

    errors = errors_of(browser.post(url, {**sent_by(browser.get(url)), **nested}))

    assert errors.keys() == nested.keys()
