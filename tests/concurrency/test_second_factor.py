"""One code, sent by many at the same moment, lets one of them in."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP, format_hotp_value, hotp_value
from django.db import connection

from fma_django.accounts import second_factor
from tests.records import make_user

pytestmark = pytest.mark.django_db(transaction=True)

AT_ONCE = 8
SEED = "A" * 32
STEP = 60_000_000
step_of = second_factor.step_of


def slow_step_of(seed: str, code: str) -> int | None:
    """The time in which others look at the same row."""
    time.sleep(0.05)
    return step_of(seed, code)


@pytest.mark.parametrize("kind", ["app", "recovery"])
def test_a_code_is_used_once_by_many(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr("allauth.mfa.totp.internal.auth.time.time", lambda: STEP * 30)
    monkeypatch.setattr(second_factor, "step_of", slow_step_of)
    user = make_user()
    TOTP.activate(user, SEED)
    recovery_codes = RecoveryCodes.activate(user).get_unused_codes()
    code = format_hotp_value(hotp_value(SEED, STEP)) if kind == "app" else recovery_codes[0]
    together = Barrier(AT_ONCE)

    def ask(_: int) -> bool:
        together.wait()
        try:
            return second_factor.use_code(user, code)
        finally:
            connection.close()

    with ThreadPoolExecutor(AT_ONCE) as threads:
        taken = list(threads.map(ask, range(AT_ONCE)))

    assert sorted(taken) == [False] * (AT_ONCE - 1) + [True]
    assert Authenticator.objects.filter(user=user).count() == 2
