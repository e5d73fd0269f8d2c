"""The permissions of a user: everywhere, or with the clients of some organisations."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, Permission
from django.db.models import BigIntegerField, F, Model, QuerySet, Value
from django.db.models.functions import Cast

from fma_django.accounts.roles import CHANGE_EXPERIMENTS, DELETE_EXPERIMENTS, RUN_EXPERIMENTS
from fma_django.models import Client, FederatedModel, Membership, Organisation

_CACHE = "_fma_grants"
_ORGANISATIONS = "_fma_organisations"
_ONLY_MODEL = "_fma_only_model"


@dataclass(frozen=True)
class Grants:
    """A user's permissions, as Django writes them (`app.codename`).

    everywhere: for the whole installation. organisations: for the clients of an organisation, by its id.
    """

    everywhere: frozenset[str]
    organisations: dict[int, frozenset[str]]


def grants_of(user: Any) -> Grants:
    """The permissions of an active user, read once a request, in one statement."""
    kept: Grants | None = getattr(user, _CACHE, None)
    if kept is None:
        kept = _read(user)
        setattr(user, _CACHE, kept)
    return kept


def forget_grants(user: Any) -> None:
    """Read them anew when they are asked for next."""
    for name in (_CACHE, _ORGANISATIONS, "_perm_cache", "_user_perm_cache", "_group_perm_cache"):
        user.__dict__.pop(name, None)


def narrow_to_model(user: Any, federated_model_id: int | None) -> None:
    """Let the user of this request see and change only this model and what belongs to it; None: all that they may."""
    setattr(user, _ONLY_MODEL, federated_model_id)


def only_model(user: Any) -> int | None:
    """The id of the only model that this request may reach."""
    only: int | None = getattr(user, _ONLY_MODEL, None)
    return only


def organisations_where(user: Any, permission: str) -> list[int]:
    """The ids of the organisations in which the user's role has the permission."""
    if not isinstance(user, AbstractBaseUser) or not user.is_active or _is_beyond_model(user, permission):
        return []
    return sorted(
        pk for pk, permissions in grants_of(user).organisations.items() if permission in permissions
    )


def organisations_of(user: Any) -> frozenset[int]:
    """The ids of the organisations that the user belongs to, with a role or without, read once a request."""
    kept: frozenset[int] | None = getattr(user, _ORGANISATIONS, None)
    if kept is None:
        kept = frozenset(Membership.objects.filter(user=user.pk).values_list("organisation", flat=True))
        setattr(user, _ORGANISATIONS, kept)
    return kept


def may(user: Any, permission: str, of: Organisation | Client | int | None = None) -> bool:
    """Whether the user has the permission everywhere, or in this organisation (its id, or that of this client)."""
    if not isinstance(user, AbstractBaseUser | AnonymousUser) or _is_beyond_model(user, permission):
        return False
    if user.has_perm(permission):  # type: ignore[union-attr]
        return True
    organisation = (
        of.organisation_id if isinstance(of, Client) else of.pk if isinstance(of, Organisation) else of
    )
    return organisation is not None and organisation in organisations_where(user, permission)


def may_change_experiment(user: Any, federated_model: FederatedModel, *, deleting: bool = False) -> bool:
    """Whether the user may change this experiment: as its owner who may run any, or as one who may change all."""
    if only_model(user) not in (None, federated_model.pk):
        return False
    if federated_model.developer_id == user.pk and user.has_perm(RUN_EXPERIMENTS):
        return True
    return bool(user.has_perm(DELETE_EXPERIMENTS if deleting else CHANGE_EXPERIMENTS))


def _is_beyond_model(user: Any, permission: str) -> bool:
    """Whether a request that is narrowed to a model may not use the permission: it may view rows of the model alone."""
    return only_model(user) is not None and not permission.startswith("fma_django.view_")


def permission_to_view(rows: type[Model]) -> str:
    return f"{rows._meta.app_label}.view_{rows._meta.model_name}"


class RolesBackend(ModelBackend):
    """Django's, which reads the permissions of a user and of all roles in one statement."""

    def get_all_permissions(self, user_obj: Any, obj: Any = None) -> set[str]:
        if not user_obj.is_active or user_obj.is_anonymous or obj is not None or user_obj.is_superuser:
            return super().get_all_permissions(user_obj, obj)
        return set(grants_of(user_obj).everywhere)

    def has_perm(self, user_obj: Any, perm: str, obj: Any = None) -> bool:
        """obj: an organisation or a client, for a permission that a role in its organisation may give, too."""
        if isinstance(obj, Organisation | Client):
            return may(user_obj, perm, obj)
        return super().has_perm(user_obj, perm, obj)


def _read(user: Any) -> Grants:
    def rows(permissions: QuerySet[Permission], organisation: Any) -> QuerySet[Any]:
        return permissions.order_by().values_list("content_type__app_label", "codename", organisation)

    # Of two nulls without a type PostgreSQL makes a text, which goes with no id in one column.
    everywhere = Cast(Value(None), BigIntegerField(null=True))
    of_memberships = Permission.objects.filter(group__memberships__user=user.pk)
    found = rows(Permission.objects.filter(user=user.pk), everywhere).union(
        rows(Permission.objects.filter(group__user=user.pk), everywhere),
        rows(of_memberships, F("group__memberships__organisation")),
        all=True,
    )
    return _collected(found)


def _collected(found: Iterable[tuple[str, str, int | None]]) -> Grants:
    everywhere: set[str] = set()
    organisations: dict[int, set[str]] = {}
    for label, codename, organisation in found:
        kept = everywhere if organisation is None else organisations.setdefault(organisation, set())
        kept.add(f"{label}.{codename}")
    return Grants(
        everywhere=frozenset(everywhere),
        organisations={pk: frozenset(permissions) for pk, permissions in organisations.items()},
    )
