"""The pages and actions of the admin that each kind of user may open and use."""

from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db.models import Model
from django.forms.models import model_to_dict
from django.test import Client as Browser
from django.urls import reverse

from fma_django.accounts.roles import USE_ADMIN_SITE
from fma_django.models import (
    Client,
    ClientAggregateScore,
    ConfigVersion,
    FederatedModel,
    Membership,
    ModelAggregate,
    ModelArtifact,
    ModelUpdate,
    Organisation,
    Participation,
    Round,
)
from tests.django.admin.conftest import SHOWN, add_rows
from tests.django.admin.test_pages import url_of
from tests.records import make_client, make_model, make_user, make_user_with, send_update

pytestmark = pytest.mark.django_db

HISTORY = (
    Round,
    ModelUpdate,
    ModelAggregate,
    ModelArtifact,
    ClientAggregateScore,
    ConfigVersion,
    Participation,
)


def browser_of(user: User, *permissions: str) -> Browser:
    user.user_permissions.add(*Permission.objects.filter(codename__in=permissions))
    opened = Browser()
    opened.force_login(user)
    return opened


def pages() -> list[str]:
    found = [reverse("admin:index")]
    for model in SHOWN:
        row = model._default_manager.first()
        assert row is not None
        found += [url_of(model, "changelist"), url_of(model, "change", row.pk)]
    return found


@pytest.mark.parametrize("staff", [None, False])
def test_whoever_is_not_staff_gets_the_login_page(rows: None, staff: bool | None) -> None:
    browser = Browser() if staff is None else browser_of(make_user())
    for page in pages():
        assert browser.get(page).headers["Location"] == f"{reverse('admin:login')}?next={page}"


def test_staff_without_permissions_sees_no_rows(rows: None) -> None:
    browser = browser_of(make_user_with(USE_ADMIN_SITE))
    index, *others = pages()
    assert browser.get(index).context["fma_cards"] == []
    assert {browser.get(page).status_code for page in others} == {403}


def test_staff_with_the_view_permission_sees_and_changes_nothing(rows: None) -> None:
    browser = browser_of(make_user_with(USE_ADMIN_SITE), "view_federatedmodel", "view_round", "view_client")
    model = FederatedModel.objects.first()
    assert model is not None
    assert browser.get(url_of(FederatedModel, "change", model.pk)).status_code == 200
    assert browser.post(url_of(FederatedModel, "change", model.pk), {"name": "mine"}).status_code == 403
    for action in ("start_this", "pause_this", "cancel_this", "end_this", "clone_this"):
        url = reverse(f"admin:fma_django_federatedmodel_{action}", args=[model.pk])
        assert browser.post(url, {"confirmed": "yes"}).status_code == 403
    open_round = model.rounds.get(state="collecting")
    url = reverse("admin:fma_django_round_cancel_this", args=[open_round.pk])
    assert browser.post(url, {"confirmed": "yes"}).status_code == 403
    url = reverse("admin:fma_django_client_revoke_this", args=[Client.objects.earliest("pk").pk])
    assert browser.post(url, {"confirmed": "yes"}).status_code == 403
    assert FederatedModel.objects.get(pk=model.pk).allow_aggregation
    assert not Client.objects.filter(is_active=False).exists()


@pytest.mark.parametrize("model", HISTORY)
def test_history_is_neither_added_changed_nor_deleted(
    browser: Browser, rows: None, model: type[Model]
) -> None:
    row = model._default_manager.latest("pk")
    before = model_to_dict(row)
    fields = dict.fromkeys(before, "1")
    assert browser.post(url_of(model, "add"), fields).status_code == 403
    assert browser.post(url_of(model, "change", row.pk), fields).status_code == 403
    assert browser.post(url_of(model, "delete", row.pk), {"post": "yes"}).status_code == 403
    chosen = {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
    browser.post(url_of(model, "changelist"), chosen)
    assert model_to_dict(model._default_manager.get(pk=row.pk)) == before


def test_client_is_revoked_not_deleted(browser: Browser, rows: None) -> None:
    client = Client.objects.earliest("pk")
    assert browser.post(url_of(Client, "delete", client.pk), {"post": "yes"}).status_code == 403


def test_model_is_deleted_with_everything_in_it_by_whoever_may(rows: None) -> None:
    add_rows(1)
    browser = browser_of(make_user_with(USE_ADMIN_SITE), "view_federatedmodel", "delete_federatedmodel")
    deleted, kept = FederatedModel.objects.all()
    clients = Client.objects.count()
    page = browser.get(url_of(FederatedModel, "delete", deleted.pk))
    assert dict(page.context["model_count"])["rounds"] == 3
    browser.post(url_of(FederatedModel, "delete", deleted.pk), {"post": "yes"})
    assert list(FederatedModel.objects.all()) == [kept]
    for model in (Round, ModelUpdate, ModelAggregate, ModelArtifact):
        assert {row.federated_model for row in model._default_manager.all()} == {kept}
    assert Client.objects.count() == clients


def test_models_are_deleted_from_the_list_too(browser: Browser, rows: None) -> None:
    make_model()
    chosen = [model.pk for model in FederatedModel.objects.all()]
    browser.post(
        url_of(FederatedModel, "changelist"),
        {"action": "delete_selected", "_selected_action": chosen, "post": "yes"},
    )
    assert not FederatedModel.objects.exists()


def test_model_is_not_deleted_without_the_permission(rows: None) -> None:
    browser = browser_of(make_user_with(USE_ADMIN_SITE), "view_federatedmodel", "change_federatedmodel")
    model = FederatedModel.objects.latest("pk")
    assert browser.post(url_of(FederatedModel, "delete", model.pk), {"post": "yes"}).status_code == 403
    assert FederatedModel.objects.get() == model


def test_developer_with_models_is_not_deleted(browser: Browser, rows: None) -> None:
    developer = FederatedModel.objects.latest("pk").developer
    browser.post(url_of(User, "delete", developer.pk), {"post": "yes"})
    assert User.objects.filter(pk=developer.pk).exists()


@pytest.mark.parametrize("name", ["success", "failure", "schedule", "ormq"])
def test_nobody_writes_into_the_task_queue(browser: Browser, name: str) -> None:
    # A schedule names the function that a worker runs.
    said = {"func": "os.system", "args": "'true'", "schedule_type": "O", "repeats": -1}
    assert browser.post(reverse(f"admin:django_q_{name}_add"), said).status_code == 403


def test_open_round_of_a_stranger_is_left_alone_by_get(browser: Browser) -> None:
    model = make_model(requirement="require_x_updates", requirement_args=[9])
    send_update(model, make_client(model).client)
    url = reverse("admin:fma_django_federatedmodel_cancel_this", args=[model.pk])
    assert browser.get(url).status_code == 200
    assert browser.get(url, {"confirmed": "yes"}).status_code == 200
    assert model.rounds.get().state == "collecting"


def members_form(*members: tuple[int | str, int, int | str]) -> dict[str, Any]:
    """The form of an organisation with these members: the key of the row, the user and the role."""
    kept = sum(row != "" for row, _, _ in members)
    form: dict[str, Any] = {
        "name": "hospital",
        "memberships-TOTAL_FORMS": len(members),
        "memberships-INITIAL_FORMS": kept,
        "issuers-TOTAL_FORMS": 0,
        "issuers-INITIAL_FORMS": 0,
    }
    for index, (row, user, role) in enumerate(members):
        form |= {
            f"memberships-{index}-id": row,
            f"memberships-{index}-user": user,
            f"memberships-{index}-role": role,
        }
    return form


def test_members_get_no_role_with_more_than_the_editor_holds(db: None) -> None:
    hospital = Organisation.objects.create(name="hospital")
    url = url_of(Organisation, "change", hospital.pk)
    more = Group.objects.create(name="more")
    more.permissions.set(Permission.objects.filter(codename="delete_organisation"))
    auditor = Group.objects.get(name="auditor")
    editor, boss = make_user_with(role="organisation admin"), make_user_with()
    holds_more = Membership.objects.create(organisation=hospital, user=boss, role=more)
    browser = browser_of(editor)
    own = (holds_more.pk, boss.pk, more.pk)

    for form in (
        members_form(own, ("", editor.pk, more.pk)),
        members_form((holds_more.pk, boss.pk, auditor.pk)),
        members_form((holds_more.pk, editor.pk, more.pk)),
        members_form(own) | {"memberships-0-DELETE": "on"},
    ):
        answer = browser.post(url, form)
        assert answer.status_code == 200
        assert "delete_organisation" in str(answer.context["adminform"].form.errors)
        assert list(Membership.objects.values_list("user", "role")) == [(boss.pk, more.pk)]

    assert browser.post(url, members_form(own, ("", editor.pk, auditor.pk))).status_code == 302
    given = Membership.objects.get(user=editor)
    assert given.role == auditor
    assert browser.post(url, members_form(own, (given.pk, editor.pk, ""))).status_code == 302
    assert Membership.objects.get(user=editor).role is None
    other = make_user_with()
    assert browser.post(url, members_form(own, (given.pk, other.pk, auditor.pk))).status_code == 302
    assert set(Membership.objects.values_list("user", "role")) == {
        (boss.pk, more.pk),
        (other.pk, auditor.pk),
    }
    removed = members_form(own, (Membership.objects.get(user=other).pk, other.pk, auditor.pk))
    assert browser.post(url, removed | {"memberships-1-DELETE": "on"}).status_code == 302
    assert list(Membership.objects.values_list("user", "role")) == [(boss.pk, more.pk)]


def test_whoever_may_not_change_models_registers_no_clients_with_them(db: None) -> None:
    model, another = make_model(), make_model()
    client = make_client(model).client
    url = url_of(Client, "change", client.pk)
    admin = browser_of(make_user_with(role="organisation admin"))

    for chosen in ([], [another.pk], [model.pk, another.pk]):
        assert admin.post(url, {"name": "ward", "federated_models": chosen}).status_code == 302
        assert list(client.federated_models.all()) == [model]
    admin.post(url_of(Client, "add"), {"name": "new", "federated_models": [model.pk]})
    assert list(Client.objects.get(name="new").federated_models.all()) == []
    assert Client.objects.get(pk=client.pk).name == "ward"

    operator = browser_of(make_user_with(role="operator"))
    assert operator.post(url, {"federated_models": [another.pk]}).status_code == 302
    assert list(client.federated_models.all()) == [another]
