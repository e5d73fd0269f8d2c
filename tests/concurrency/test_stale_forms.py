"""One of two forms of a row that are sent at the same moment is saved, and the other is refused as stale."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client as Browser

from fma_django.admin.accounts import ThemedUserAdmin
from fma_django.admin.started_from import StartedFromForm
from fma_django.experiments.lifecycle import cancel_experiment
from fma_django.models import FederatedModel, Organisation, Tag
from tests.concurrency.test_races import all_at_once
from tests.django.admin.test_pages import url_of
from tests.django.admin.test_started_from import sent_by
from tests.records import make_client, make_model, make_user

pytestmark = pytest.mark.django_db(transaction=True)


def ended_model() -> FederatedModel:
    model = make_model()
    cancel_experiment(model)
    return model


ROWS: dict[str, Callable[[], Any]] = {
    "client": lambda: make_client(make_model()).client,
    "organisation": lambda: Organisation.objects.create(name="North"),
    "tag": lambda: Tag.objects.create(name="North"),
    "group": lambda: Group.objects.create(name="North"),
    "user": lambda: make_user("erik"),
    "model": make_model,
    "ended model": ended_model,
}


def operator(name: str) -> Browser:
    user = make_user(name, staff=True)
    user.is_superuser = True
    user.save()
    opened = Browser()
    opened.force_login(user)
    return opened


@pytest.mark.parametrize("kind", ROWS)
def test_of_two_forms_at_the_same_moment_one_is_saved(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = ROWS[kind]()
    field = "email" if kind == "user" else "name"
    url = url_of(type(row), "change", row.pk)
    browsers = [operator("ann"), operator("bob")]
    opened = sent_by(browsers[0].get(url))
    words = ["east@example.org", "west@example.org"] if field == "email" else ["east", "west"]
    both_were_checked = threading.Barrier(2)
    check = StartedFromForm.clean

    def check_and_wait(form: Any) -> Any:
        cleaned = check(form)
        with suppress(threading.BrokenBarrierError):  # the other waits for the row
            both_were_checked.wait(2)
        return cleaned

    monkeypatch.setattr(StartedFromForm, "clean", check_and_wait)

    def send(browser: Browser, word: str) -> int:
        return browser.post(url, {**opened, field: word}).status_code

    statuses = all_at_once(*[lambda b=b, w=w: send(b, w) for b, w in zip(browsers, words, strict=True)])

    assert sorted(statuses) == [200, 302]
    saved = words[statuses.index(302)]
    row.refresh_from_db()
    assert getattr(row, field) == saved


def test_two_owners_who_delete_each_other_leave_one(monkeypatch: pytest.MonkeyPatch) -> None:
    browsers = [operator("ann"), operator("bob")]
    owners = [User.objects.get(username=name) for name in ("ann", "bob")]
    both_were_asked = threading.Barrier(2)
    ask = ThemedUserAdmin.has_delete_permission

    def ask_and_wait(self: Any, request: Any, obj: Any = None) -> bool:
        may = ask(self, request, obj)
        if obj is not None:
            with suppress(threading.BrokenBarrierError):  # SQLite has one writer at a time
                both_were_asked.wait(2)
        return may

    monkeypatch.setattr(ThemedUserAdmin, "has_delete_permission", ask_and_wait)

    def delete(browser: Browser, other: User) -> int:
        return browser.post(url_of(User, "delete", other.pk), {"post": "yes"}).status_code

    statuses = all_at_once(
        *[lambda b=b, o=o: delete(b, o) for b, o in zip(browsers, owners[::-1], strict=True)]
    )

    assert statuses.count(302) == 1
    assert User.objects.filter(is_superuser=True, is_active=True).count() == 1
