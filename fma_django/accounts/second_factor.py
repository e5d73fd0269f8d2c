"""The second factor of a login: codes of an authenticator app (TOTP, RFC 6238), and codes for whoever lost it.

The rows are those of allauth.mfa. Its seeds are sealed, and the last step whose code was taken is kept beside them, so
that no process takes a code, or an earlier one, again.
"""

import structlog
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value, yield_hotp_counters_from_time
from django.contrib.auth.models import User
from django.db import transaction
from django.utils.crypto import constant_time_compare

from fma_django import conf
from fma_django.accounts.roles import USE_ADMIN_SITE
from fma_django.accounts.seal import Unreadable, unseal
from fma_django.accounts.users import require_may_change
from fma_django.errors import NotPermitted

TOTP = Authenticator.Type.TOTP
RECOVERY_CODES = Authenticator.Type.RECOVERY_CODES
LAST_STEP = "last_step"
LIFTED = "limit_lifted"

log = structlog.get_logger(__name__)


def id_of(user: User) -> int | None:
    """The id of the user's second factor, or None without one; a new one has another id."""
    pk: int | None = (
        Authenticator.objects.filter(user_id=user.pk, type=TOTP).values_list("pk", flat=True).first()
    )
    return pk


def is_on(user: User) -> bool:
    return id_of(user) is not None


def is_missing(user: User) -> bool:
    """Whether the user must have a second factor (FMA_SECOND_FACTOR) and has none."""
    return conf.current().second_factor == "required" and user.has_perm(USE_ADMIN_SITE) and not is_on(user)


def step_of(seed: str, code: str) -> int | None:
    """The step of 30 seconds, the present one or one beside it, whose code this is."""
    said = code.replace(" ", "")
    for step in yield_hotp_counters_from_time():
        if constant_time_compare(said, format_hotp_value(hotp_value(seed, step))):
            return int(step)
    return None


def use_code(user: User, code: str) -> bool:
    """Whether this is a code of the user, of the app or for recovery, that was not used before; it is used then."""
    with transaction.atomic():
        # The lock lets a code that comes twice at one time be used once.
        rows = Authenticator.objects.select_for_update().filter(user_id=user.pk).order_by("pk")
        found = {row.type: row for row in rows}
        if TOTP not in found:
            return False
        try:
            return _use_totp(found[TOTP], code) or (
                RECOVERY_CODES in found and bool(found[RECOVERY_CODES].wrap().validate_code(code))
            )
        except Unreadable as error:
            log.error("second_factor_unreadable", user=user.pk, reason=str(error))
            return False


def note_first_step(user: User, step: int) -> None:
    """Take the code of this step, which turned the second factor on, for used."""
    _note(Authenticator.objects.select_for_update().get(user_id=user.pk, type=TOTP), step)


def name_of_limit(user: User) -> str:
    """The account whose wrong codes are counted: another one for each second factor, and once the limit was lifted.

    Counts are kept where a command cannot reach them: in the memory of each process, or in Redis.
    """
    row = Authenticator.objects.filter(user_id=user.pk, type=TOTP).first()
    return f"{user.pk}" if row is None else f"{user.pk} {row.pk} {row.data.get(LIFTED, 0)}"


def lift_limit(user: User, *, by: User | None) -> bool:
    """Let a user who sent too many wrong codes try again at once; whether the user has a second factor.

    by: who asks; None for the operator at the server's command line. Raises NotPermitted.
    """
    if by is not None:
        require_may_change(by, user)
    with transaction.atomic():
        row = Authenticator.objects.select_for_update().filter(user_id=user.pk, type=TOTP).first()
        if row is None:
            return False
        row.data[LIFTED] = row.data.get(LIFTED, 0) + 1
        row.save(update_fields=["data"])
    log.warning("code_limit_lifted", user=user.pk, by=None if by is None else by.pk)
    return True


def take_off(user: User, *, by: User | None) -> bool:
    """Remove the second factor of a user who lost it; whether there was one.

    by: who asks; None for the operator at the server's command line. Raises NotPermitted, also for oneself: whoever
    has one's token or session could do so.
    """
    if by is not None:
        if by.pk == user.pk:
            raise NotPermitted("a user turns off the own second factor by a code, in the admin")
        require_may_change(by, user)
    deleted, _ = Authenticator.objects.filter(user_id=user.pk).delete()
    if deleted:
        log.warning("second_factor_taken_off", user=user.pk, by=None if by is None else by.pk)
    return bool(deleted)


def _use_totp(row: Authenticator, code: str) -> bool:
    step = step_of(unseal(row.data["secret"]), code)
    if step is None or step <= row.data.get(LAST_STEP, 0):
        return False
    _note(row, step)
    return True


def _note(row: Authenticator, step: int) -> None:
    row.data[LAST_STEP] = step
    row.save(update_fields=["data"])
