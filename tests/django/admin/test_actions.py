"""Actions of operators in the admin, and their effects in the record."""

import json
import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client as Browser
from django.urls import reverse
from pytest_django import Settings

from fma_django.accounts.tokens import Limits, create_token, find_token, issue_token
from fma_django.clients.invitations import create_invitation
from fma_django.clients.registration import find_client
from fma_django.experiments.lifecycle import cancel_experiment, pause, resume
from fma_django.models import ApiToken, Client, FederatedModel, Invitation, ModelUpdate, Round
from fma_django.models.federated_model import CONFIGURATION
from fma_django.models.model_update import UpdateStatus
from tests.django.admin.conftest import fail_a_round
from tests.django.admin.test_pages import url_of
from tests.records import make_aggregate, make_client, make_model, make_user, make_user_with, send_update

pytestmark = pytest.mark.django_db


@pytest.fixture
def model(db: None) -> FederatedModel:
    return make_model(requirement="require_x_updates", requirement_args=[2])


def form_of(model: FederatedModel, **changes: Any) -> dict[str, Any]:
    values = {name: getattr(model, name) for name in (*CONFIGURATION, "spec")}
    return {
        **{name: "" if isinstance(value, dict | list | None) else value for name, value in values.items()},
        "name": model.name,
        "developer": model.developer_id,
        "allow_aggregation": "on" if model.allow_aggregation else "",
        "aggregator_params": "{}",
        "requirement_args": "[2]",
        "seed": "",
        **changes,
    }


def errors_of(page: Any) -> dict[str, list[str]]:
    assert page.status_code == 200
    return dict(page.context_data["adminform"].form.errors)


def choose(browser: Browser, rows: list[Any], action: str, *, follow: bool = False, **more: Any) -> Any:
    said = {"action": action, "_selected_action": [row.pk for row in rows], **more}
    return browser.post(url_of(type(rows[0]), "changelist"), said, follow=follow)


def test_model_is_made_with_its_first_round_open(browser: Browser, admin_user: User) -> None:
    draft = FederatedModel(name="digits", developer=admin_user, aggregator="mean")
    browser.post(url_of(FederatedModel, "add"), form_of(draft, requirement_args=""))
    made = FederatedModel.objects.get()
    assert (made.name, made.developer, made.requirement_args) == ("digits", admin_user, [])
    assert made.rounds.get().is_open


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("aggregator", "guess", "guess"),
        ("aggregator_params", '{"beta": 1}', "beta"),
        ("aggregator_params", "[1", "JSON"),
        ("stages", '[{"name": "clip"}]', "clip_norm"),
        ("stages", '{"name": "clip_norm"}', "a list"),
        ("stages", "[{}", "JSON"),
        ("optimiser", '{"name": "fedadam", "beta1": 1}', "less than 1"),
        ("optimiser", '{"name": "sgd", "learning_rate": NaN}', "NaN"),
        ("optimiser", '"fedadam"', "an object"),
        ("staleness", '{"name": "linear"}', "hinge"),
        ("update_kind", "gradient", "gradient"),
        ("requirement_args", "[0]", "require_x_updates"),
        ("furthest_base_agg", "0", "1"),
        ("round_policy", '{"goals": 3}', "goals"),
        ("selector", '{"name": "random"}', "round_policy.goal"),
        ("eligibility", '{"name": "charging"}', "a list"),
        ("seed", "-1", "0"),
        ("client_config", "[]", "object"),
        ("client_config_overrides", '[{"tags": []}]', "set"),
        ("client_config_schema", '{"type": 3}', "JSON Schema"),
        ("update_schema", '{"type": 3}', "JSON Schema"),
        ("client_agg_results_schema", '{"type": 3}', "JSON Schema"),
        ("spec", '{"w": {"shape": [-1], "dtype": "float32"}}', "w"),
        ("name", "", "required"),
    ],
)
def test_what_is_refused_is_said_at_its_field(
    browser: Browser, unrendered: None, model: FederatedModel, field: str, value: str, said: str
) -> None:
    for url in (url_of(FederatedModel, "add"), url_of(FederatedModel, "change", model.pk)):
        errors = errors_of(browser.post(url, form_of(model, **{field: value})))
        assert list(errors) == [field]
        assert said in errors[field][0]
    assert list(FederatedModel.objects.values_list(field, flat=True)) == [getattr(model, field)]


def test_a_strategy_is_made_and_taken_away_in_the_form(browser: Browser, model: FederatedModel) -> None:
    url = url_of(FederatedModel, "change", model.pk)
    chosen = {"stages": [{"name": "clip_norm", "max_norm": 10}], "optimiser": {"name": "fedadam"}}

    browser.post(url, form_of(model, update_kind="delta", **{k: json.dumps(v) for k, v in chosen.items()}))
    changed = FederatedModel.objects.get()
    assert (changed.stages, changed.optimiser) == (chosen["stages"], chosen["optimiser"])
    assert changed.update_kind == "delta"

    # A browser also sends what the page showed before, in hidden inputs.
    shown = {"initial-stages": json.dumps(chosen["stages"])}
    browser.post(url, form_of(model, **shown))
    changed = FederatedModel.objects.get()
    assert (changed.stages, changed.optimiser, changed.update_kind) == ([], None, "weights")


def test_parts_that_cannot_go_together_are_said_at_the_one_that_is_too_many(
    browser: Browser, model: FederatedModel
) -> None:
    form = form_of(model, aggregator="feddyn", optimiser='{"name": "fedadam"}')

    assert list(errors_of(browser.post(url_of(FederatedModel, "change", model.pk), form))) == ["optimiser"]
    assert FederatedModel.objects.get().aggregator == "mean"


def test_change_goes_through_the_service(browser: Browser, model: FederatedModel) -> None:
    send_update(model, make_client(model).client)
    pause(model)
    # One update is enough from now on, so the round that has one is due once the model runs.
    answer = browser.post(url_of(FederatedModel, "change", model.pk), form_of(model, requirement_args="[1]"))
    assert answer.status_code == 302
    assert model.rounds.get().ready_on is None
    resume(model)
    assert model.rounds.get().ready_on is not None


def test_change_leaves_the_rest_and_the_clients_alone(browser: Browser, model: FederatedModel) -> None:
    client = make_client(model).client
    make_aggregate(model, client, make_client(model).client)
    model.refresh_from_db()
    browser.post(url_of(FederatedModel, "change", model.pk), form_of(model, name="renamed"))
    changed = FederatedModel.objects.get()
    assert changed.name == "renamed"
    assert (changed.spec, changed.weights_layout) == (model.spec, model.weights_layout)
    assert changed.clients.count() == 2


def test_spec_of_a_model_with_weights_is_not_taken(browser: Browser, model: FederatedModel) -> None:
    make_aggregate(model, make_client(model).client, make_client(model).client)
    model.refresh_from_db()
    other = '{"v": {"shape": [1], "dtype": "float32"}}'
    browser.post(url_of(FederatedModel, "change", model.pk), form_of(model, spec=other))
    assert FederatedModel.objects.get().spec == model.spec


def test_aggregator_of_a_plugin_that_is_gone_stays_in_the_form(
    browser: Browser, model: FederatedModel
) -> None:
    FederatedModel.objects.update(aggregator="gone")
    content = browser.get(url_of(FederatedModel, "change", model.pk)).content.decode()
    assert re.search(r'<option value="gone"\s+selected', content)


def test_models_are_paused_and_resumed(browser: Browser, model: FederatedModel) -> None:
    page = choose(browser, [model], "pause_selected", follow=True)
    assert "experiment is paused." in page.content.decode()
    assert not FederatedModel.objects.get().allow_aggregation
    choose(browser, [model], "resume_selected")
    assert FederatedModel.objects.get().allow_aggregation
    assert [entry.change_message for entry in LogEntry.objects.order_by("pk")] == ["Paused.", "Resumed."]


def test_resuming_acts_on_a_round_that_was_waiting(browser: Browser, model: FederatedModel) -> None:
    choose(browser, [model], "pause_selected")
    for _ in range(2):
        send_update(model, make_client(model).client)
    assert model.rounds.get().ready_on is None
    choose(browser, [model], "resume_selected")
    assert model.rounds.get().ready_on is not None


def test_pause_and_resume_on_the_page_of_a_model(browser: Browser, model: FederatedModel) -> None:
    for action, other, allowed in (("pause", "resume", False), ("resume", "pause", True)):
        page = browser.get(url_of(FederatedModel, "change", model.pk)).content.decode()
        url = reverse(f"admin:fma_django_federatedmodel_{action}_this", args=[model.pk])
        assert url in page
        assert f"/{other}_this/" not in page
        assert browser.get(url).status_code == 200
        browser.post(url, {"confirmed": "yes"})
        assert FederatedModel.objects.get().allow_aggregation is allowed


def test_model_that_cannot_be_changed_says_why(browser: Browser, model: FederatedModel) -> None:
    cancel_experiment(model)
    page = choose(browser, [model], "resume_selected", follow=True)
    assert "experiment is not resumed: the experiment of model" in page.content.decode()


def test_open_rounds_are_cancelled_after_a_question(browser: Browser, model: FederatedModel) -> None:
    update = send_update(model, make_client(model).client)
    page = choose(browser, [model], "cancel_selected")
    assert page.context["named"] == ["experiment"]
    assert update.round.pk == model.rounds.get(state="collecting").pk
    choose(browser, [model], "cancel_selected", confirmed="yes")
    update.refresh_from_db()
    assert (update.round.state, update.status) == ("cancelled", UpdateStatus.INVALID)
    assert model.rounds.get(state="collecting").number == 2


def test_question_sends_the_same_choice_again(browser: Browser, model: FederatedModel) -> None:
    page = choose(browser, [model], "cancel_selected", select_across="0", index="0")
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page.content.decode()))
    assert fields.pop("csrfmiddlewaretoken")
    browser.post(url_of(FederatedModel, "changelist"), fields)
    assert model.rounds.filter(state="cancelled").count() == 1


def test_this_very_round_is_cancelled_or_none(browser: Browser, model: FederatedModel) -> None:
    seen = model.rounds.get()
    url = reverse("admin:fma_django_round_cancel_this", args=[seen.pk])
    browser.post(url, {"confirmed": "yes"})
    assert Round.objects.get(pk=seen.pk).state == "cancelled"
    answer = browser.post(url, {"confirmed": "yes"}, follow=True)
    assert "is no longer collecting" in answer.content.decode()
    assert model.rounds.get(state="collecting").number == 2


def test_ended_rounds_of_a_choice_are_left_alone(browser: Browser) -> None:
    model = make_model(requirement="require_x_updates", requirement_args=[1])
    failed = fail_a_round(model, make_client(model).client)
    choose(browser, [failed, model.rounds.get(state="collecting")], "cancel_selected", confirmed="yes")
    assert sorted(model.rounds.values_list("state", flat=True)) == ["cancelled", "collecting", "failed"]


def test_clients_are_revoked_after_a_question(browser: Browser, model: FederatedModel) -> None:
    clients = [make_client(model).client for _ in range(3)]
    choose(browser, clients[:2], "revoke_selected")
    assert not Client.objects.filter(is_active=False).exists()
    choose(browser, clients[:2], "revoke_selected", confirmed="yes")
    assert list(Client.objects.filter(is_active=True)) == clients[2:]


def test_client_is_revoked_on_its_page(browser: Browser, model: FederatedModel) -> None:
    client = make_client(model).client
    url = reverse("admin:fma_django_client_revoke_this", args=[client.pk])
    assert url in browser.get(url_of(Client, "change", client.pk)).content.decode()
    browser.post(url, {"confirmed": "yes"})
    assert not Client.objects.get().is_active
    assert url not in browser.get(url_of(Client, "change", client.pk)).content.decode()


@pytest.mark.parametrize(("action", "is_let_in"), [("approve", True), ("refuse", False)])
@pytest.mark.parametrize("where", ["list", "page"])
def test_clients_that_wait_are_approved_or_refused(
    browser: Browser, model: FederatedModel, settings: Settings, action: str, is_let_in: bool, where: str
) -> None:
    settings.FMA_REGISTRATION = "approval"
    client = make_client(model).client
    url = reverse(f"admin:fma_django_client_{action}_this", args=[client.pk])
    page = browser.get(url_of(Client, "change", client.pk)).content.decode()
    assert url in page
    assert "revoke_this" not in page

    if where == "list":
        choose(browser, [client], f"{action}_selected")
        assert Client.objects.get().awaits_approval
        choose(browser, [client], f"{action}_selected", confirmed="yes")
    else:
        browser.post(url, {"confirmed": "yes"})

    client.refresh_from_db()
    assert (client.is_active, client.awaits_approval) == (is_let_in, False)
    assert url not in browser.get(url_of(Client, "change", client.pk)).content.decode()


def test_invitations_are_revoked_after_a_question(browser: Browser, model: FederatedModel) -> None:
    invitation, token = create_invitation(by=None, models=[model.pk])
    assert token not in browser.get(url_of(Invitation, "change", invitation.pk)).content.decode()
    choose(browser, [invitation], "revoke_selected")
    assert Invitation.objects.get().revoked_on is None
    choose(browser, [invitation], "revoke_selected", confirmed="yes")
    assert Invitation.objects.get().revoked_on is not None


def test_new_client_shows_its_credential_once(browser: Browser, model: FederatedModel) -> None:
    answer = browser.post(url_of(Client, "add"), {"federated_models": [model.pk]})
    credential = answer.context["secret"]
    assert "no-store" in answer.headers["Cache-Control"]
    client = find_client(credential)
    assert list(client.federated_models.all()) == [model]
    for url in (
        url_of(Client, "change", client.pk),
        url_of(Client, "history", client.pk),
        reverse("admin:index"),
    ):
        assert credential not in browser.get(url).content.decode()


def test_client_is_registered_with_models_and_taken_out(browser: Browser, model: FederatedModel) -> None:
    other = make_model()
    ann, bob = make_client(model).client, make_client(model).client
    update = send_update(model, ann)
    browser.post(url_of(Client, "change", ann.pk), {"federated_models": [other.pk]})
    assert list(ann.federated_models.all()) == [other]
    assert list(model.clients.all()) == [bob]
    assert ModelUpdate.objects.get(pk=update.pk).status == UpdateStatus.INVALID


def test_tokens_are_revoked(browser: Browser) -> None:
    user = make_user()
    token = issue_token(user)
    content = browser.get(url_of(User, "change", user.pk)).content.decode()
    assert token not in content
    assert "login" in content
    choose(browser, [user], "revoke_tokens")
    assert find_token(token) is None


def test_one_token_of_a_user_is_revoked(browser: Browser) -> None:
    user = make_user("ann")
    _, revoked = create_token(user, "backup", Limits("read"))
    _, kept = create_token(user, "nightly", Limits("read"))
    row = ApiToken.objects.get(name="backup")
    page = browser.get(url_of(User, "change", user.pk))
    assert b"backup" in page.content
    assert b"nightly" in page.content
    assert row.key_hash.encode() not in page.content

    said = {"username": "ann", "is_active": "on", **inline_of_tokens(row), "api_tokens-0-DELETE": "on"}
    assert browser.post(url_of(User, "change", user.pk), said).status_code == 302

    assert find_token(revoked) is None
    assert find_token(kept) is not None


def test_whoever_manages_no_users_sees_no_tokens_there(db: None) -> None:
    user = make_user("ann")
    create_token(user, "backup", Limits("read"))
    auditor = make_user_with(username="auditor", role="auditor")
    browser = Browser()
    browser.force_login(auditor)

    page = browser.get(url_of(User, "change", user.pk))

    assert page.status_code == 200
    assert b"backup" not in page.content


def inline_of_tokens(*tokens: ApiToken) -> dict[str, Any]:
    """The part of a user's form that is about these tokens."""
    said: dict[str, Any] = {"api_tokens-TOTAL_FORMS": len(tokens), "api_tokens-INITIAL_FORMS": len(tokens)}
    for number, token in enumerate(tokens):
        said |= {f"api_tokens-{number}-id": token.pk, f"api_tokens-{number}-user": token.user_id}
    return said


def test_user_is_made_and_given_another_password(browser: Browser) -> None:
    said = {
        "username": "dora",
        "usable_password": "true",
        "password1": "xk3-long-one",
        "password2": "xk3-long-one",
    }
    browser.post(url_of(User, "add"), said)
    dora = User.objects.get(username="dora")
    assert dora.check_password("xk3-long-one")
    said = {"usable_password": "true", "password1": "another-long-1", "password2": "another-long-1"}
    browser.post(reverse("admin:auth_user_password_change", args=[dora.pk]), said)
    dora.refresh_from_db()
    assert dora.check_password("another-long-1")


def test_user_keeps_the_password_when_the_page_is_saved(browser: Browser) -> None:
    user = make_user("erik")
    page = browser.get(url_of(User, "change", user.pk))
    initial = page.context["adminform"].form.initial
    browser.post(
        url_of(User, "change", user.pk),
        {"username": "erika", "email": initial["email"], "is_active": "on", **inline_of_tokens()},
    )
    changed = User.objects.get(pk=user.pk)
    assert (changed.username, changed.password) == ("erika", user.password)
