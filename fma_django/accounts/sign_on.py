"""The users whom an identity provider logs in: found, if wanted made, and given the roles that it says.

A user is bound to the provider's own name for a person, the issuer and the subject (allauth's SocialAccount). E-mail
addresses change their owners: one finds a user once, when the operator wants that, and only if it is verified.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth.models import Group, User
from django.db import IntegrityError, transaction

from fma_django import conf
from fma_django.accounts.grants import forget_grants
from fma_django.accounts.users import create_user, require_may_change
from fma_django.errors import AccountTaken, InvalidValue, NotPermitted

MOST_NAMES = 20
LONGEST_SUBJECT = 191  # of allauth's column

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Person:
    """Somebody as the provider knows them. email: a verified address, or empty. groups: the values that give roles."""

    issuer: str
    subject: str
    email: str = ""
    name: str = ""
    groups: frozenset[str] = frozenset()


def user_of(person: Person) -> User:
    """The active user whom the provider logs in, with the roles of the present moment. Raises NotPermitted."""
    domains = conf.current().oidc_email_domains
    if domains and person.email.rpartition("@")[2].lower() not in domains:
        raise NotPermitted("the account has no verified e-mail address of a domain that may log in here")
    with transaction.atomic():
        user = _known(person) or _by_email(person) or _new(person)
        if user is None or not user.is_active:
            log.warning("oidc_account_unknown", subject=person.subject, is_inactive=user is not None)
            raise NotPermitted("nobody here has this account; ask an operator to enter it for your user")
        _follow_roles(user, person.groups)
    return user


def bind_account(user: User, subject: str, *, by: User | None) -> SocialAccount:
    """Let the account of this subject at FMA_OIDC_ISSUER log in the user.

    by: who asks; None for the operator at the server's command line.
    Raises NotPermitted, AccountTaken, and InvalidValue for what is no subject, or without FMA_OIDC_ISSUER.
    """
    if by is not None:
        require_may_change(by, user)
    issuer = conf.current().oidc_issuer
    if not issuer:
        raise InvalidValue("FMA_OIDC_ISSUER is not set", field="subject")
    if not subject.isprintable() or not 0 < len(subject) <= LONGEST_SUBJECT:
        raise InvalidValue(f"a subject has 1 to {LONGEST_SUBJECT} printable characters", field="subject")
    account = bind(user, issuer, subject)
    log.warning("oidc_account_bound", user=user.pk, subject=subject, by=_name(by))
    return account


def unbind_account(account: SocialAccount, *, by: User | None) -> None:
    """Let the account log in its user no longer; sessions that it has begun end. Raises NotPermitted."""
    if by is not None:
        require_may_change(by, account.user)
    account.delete()
    log.warning("oidc_account_unbound", user=account.user_id, subject=account.uid, by=_name(by))


def bind(user: User, issuer: str, subject: str) -> SocialAccount:
    """Let the provider log in the user as this subject. Raises AccountTaken when that is another user's."""
    row, _ = SocialAccount.objects.get_or_create(provider=issuer, uid=subject, defaults={"user": user})
    if row.user_id != user.pk:
        raise AccountTaken("this account of the provider belongs to another user")
    return row


def _name(by: User | None) -> str:
    return "the command line" if by is None else by.get_username()


def _known(person: Person) -> User | None:
    rows = SocialAccount.objects.select_related("user")
    row = rows.filter(provider=person.issuer, uid=person.subject).first()
    return None if row is None else row.user


def _by_email(person: Person) -> User | None:
    """The only user with the address, unless somebody else at the provider is that user already."""
    if not conf.current().oidc_match_email or not person.email:
        return None
    rows = User.objects.select_for_update().filter(email__iexact=person.email)
    users = [row for row in rows if _folded(row.email) == _folded(person.email)]
    if len(users) != 1 or SocialAccount.objects.filter(user=users[0], provider=person.issuer).exists():
        log.warning("oidc_email_matches_no_user", users=len(users))
        return None
    bind(users[0], person.issuer, person.subject)
    if not users[0].is_superuser:
        # Whoever made the user, and knows its password or a token, holds no more than the user did: not the roles
        # that the provider gives. Only owners make owners.
        users[0].set_unusable_password()
        users[0].save(update_fields=["password"])
    log.info("oidc_user_matched", user=users[0].pk)
    return users[0]


def _folded(email: str) -> bytes:
    """The address with small letters of ASCII: for PostgreSQL, ı and i are one letter, and they are two domains."""
    return email.encode().lower()


def _new(person: Person) -> User | None:
    if not conf.current().oidc_new_users:
        return None
    user = _first_free(person, lambda name: create_user(name, by=None, email=person.email))
    bind(user, person.issuer, person.subject)
    log.info("oidc_user_made", user=user.pk)
    return user


def _first_free(person: Person, make: Callable[[str], User]) -> User:
    name = re.sub(r"[^\w.@+-]", "", person.name or person.email.partition("@")[0])[:140] or "user"
    for number in range(1, MOST_NAMES):
        try:
            with transaction.atomic():
                return make(name if number == 1 else f"{name}-{number}")
        except (InvalidValue, IntegrityError):
            continue
    raise NotPermitted(f"no free user name was found for {name!r}")


def _follow_roles(user: User, groups: frozenset[str]) -> None:
    """Give the roles of the groups, and take those of all other groups; roles that no group gives stay."""
    mapping = conf.current().oidc_roles
    if not mapping:
        return
    roles = {role.name: role for role in Group.objects.filter(name__in={role for _, role in mapping})}
    for unknown in sorted({role for _, role in mapping} - roles.keys()):
        log.error("oidc_role_unknown", role=unknown)
    wanted = {role for group, role in mapping if group in groups} & roles.keys()
    present = set(user.groups.filter(name__in=roles).values_list("name", flat=True))
    if wanted == present:
        return
    user.groups.add(*(roles[name] for name in wanted - present))
    user.groups.remove(*(roles[name] for name in present - wanted))
    forget_grants(user)
    log.info(
        "oidc_roles_changed", user=user.pk, given=sorted(wanted - present), taken=sorted(present - wanted)
    )
