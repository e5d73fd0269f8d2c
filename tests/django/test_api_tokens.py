"""Tokens: the same at every login, nothing but hashes in the database, worthless once revoked."""

from typing import Any

import pytest

from fma_django.accounts.tokens import find_token, issue_token, revoke_tokens
from fma_django.models import ApiToken
from tests.records import make_user

pytestmark = pytest.mark.django_db


def find_user(token: str) -> Any:
    found = find_token(token)
    return None if found is None else found.user


def test_a_user_has_one_token_and_two_users_have_two() -> None:
    ann, bob = make_user(), make_user()
    assert issue_token(ann) == issue_token(ann) != issue_token(bob)
    assert find_user(issue_token(ann)) == ann


def test_the_database_does_not_hold_the_token() -> None:
    token = issue_token(make_user())
    assert token not in str(ApiToken.objects.values().get())


def test_the_hash_is_not_the_token() -> None:
    issue_token(make_user())
    kept = ApiToken.objects.get()
    assert find_user(kept.key_hash) is None
    assert find_user(kept.salt) is None


def test_a_revoked_token_is_worthless_and_the_next_one_is_new() -> None:
    ann = make_user()
    token = issue_token(ann)
    assert revoke_tokens(ann)
    assert find_user(token) is None
    assert issue_token(ann) != token
    assert find_user(token) is None


def test_revoking_nothing_says_so() -> None:
    assert not revoke_tokens(make_user())


def test_the_token_of_a_user_who_was_switched_off_is_refused() -> None:
    ann = make_user()
    token = issue_token(ann)
    ann.is_active = False
    ann.save()
    assert find_user(token) is None


def test_after_a_new_secret_key_old_tokens_work_until_the_next_login(settings: Any) -> None:
    ann = make_user()
    old = issue_token(ann)
    settings.SECRET_KEY = "another-secret-key-" + "x" * 40
    assert find_user(old) == ann
    new = issue_token(ann)
    assert new != old
    assert (find_user(new), find_user(old)) == (ann, None)
