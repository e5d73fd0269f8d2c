"""Users, roles and members of organisations: nobody gives more than they hold, and an owner is always left.

`by` is the user who asks; None is the operator at the server's own command line, who may do everything.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission, User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.deletion import ProtectedError

from fma_django.accounts import roles as presets
from fma_django.accounts.grants import (
    forget_grants,
    grants_of,
    may,
    organisations_where,
    permission_to_view,
)
from fma_django.errors import InvalidValue, LastOwner, NotPermitted, StillInUse
from fma_django.models import FederatedModel, Membership, Organisation

VIEW_MODELS = permission_to_view(FederatedModel)
CHANGEABLE = ("email", "is_active", "is_owner", "roles", "password")


@dataclass(frozen=True)
class Place:
    """The organisation that a new user belongs to, and the role there; None: a member without one."""

    organisation: Organisation
    role: Group | None


def visible_users(caller: Any) -> QuerySet[User]:
    """The users that somebody may see: all, those of their organisations, or at least themselves."""
    users: QuerySet[User] = get_user_model()._default_manager.all()
    if may(caller, "auth.view_user"):
        return users
    theirs = Membership.objects.filter(
        user=OuterRef("pk"), organisation__in=organisations_where(caller, "auth.view_user")
    )
    return users.filter(Q(pk=caller.pk) | Q(Exists(theirs)))


def visible_organisations(caller: Any) -> QuerySet[Organisation]:
    """The organisations that somebody may see: all, or those that they belong to."""
    organisations = Organisation.objects.all()
    if may(caller, "fma_django.view_organisation"):
        return organisations
    return organisations.filter(
        Exists(Membership.objects.filter(organisation=OuterRef("pk"), user=caller.pk))
    )


def create_user(
    username: str,
    *,
    by: User | None,
    password: str | None = None,
    email: str = "",
    roles: Collection[Group] = (),
    is_owner: bool = False,
    place: Place | None = None,
) -> User:
    """A new user with these roles. Without a password they can log in with an API token only.

    Raises InvalidValue for a name or a password that cannot be, NotPermitted.
    """
    organisation = None if place is None else place.organisation
    _require(by, "auth.add_user", organisation)
    _require_holds(by, roles)
    if is_owner:
        _require_owner(by)
    if place is not None:
        _require(by, "fma_django.add_membership", organisation)
        _require_may_give(by, place)
    user = User(username=username, email=email, is_superuser=is_owner, is_staff=is_owner)
    _set_password(user, password)
    _check(user)
    with transaction.atomic():
        try:
            with transaction.atomic():
                user.save()
        except IntegrityError:
            raise InvalidValue(f"there is a user {username!r} already", field="username") from None
        user.groups.set(roles)
        if place is not None:
            Membership.objects.create(organisation=place.organisation, user=user, role=place.role)
    return user


def change_user(user: User, changes: Mapping[str, Any], *, by: User | None) -> User:
    """Change `email`, `is_active`, `is_owner`, `roles` (groups) and `password`.

    Raises NotPermitted, also for a user who holds more than `by`; LastOwner; InvalidValue.
    """
    with transaction.atomic():
        lock_owners()
        user = User.objects.select_for_update().get(pk=user.pk)
        _require_may_manage(by, user, "auth.change_user")
        wanted: Collection[Group] | None = changes.get("roles")
        if wanted is not None:
            present = set(user.groups.all())
            _require_holds(by, present ^ set(wanted))
        if changes.get("is_owner", user.is_superuser) != user.is_superuser:
            _require_owner(by)
            user.is_superuser = user.is_staff = bool(changes["is_owner"])
        user.is_active = changes.get("is_active", user.is_active)
        user.email = changes.get("email", user.email)
        if "password" in changes:
            _set_password(user, changes["password"])
        require_owner_left(user)
        _check(user)
        user.save()
        if wanted is not None:
            user.groups.set(wanted)
    forget_grants(user)
    return user


def delete_user(user: User, *, by: User | None) -> None:
    """Remove a user who owns no models. Raises NotPermitted, LastOwner, StillInUse."""
    with transaction.atomic():
        owners = lock_owners()
        _require_may_manage(by, user, "auth.delete_user")
        _require_another(owners, user)
        try:
            user.delete()
        except ProtectedError:
            raise StillInUse(
                "the user owns models: give them to somebody else, or delete them, first; or set is_active to false"
            ) from None


def create_organisation(name: str, *, by: User | None) -> Organisation:
    """A new organisation without members. Raises NotPermitted, also for a role in another one; InvalidValue."""
    _require(by, "fma_django.add_organisation")
    try:
        with transaction.atomic():
            return Organisation.objects.create(name=name)
    except IntegrityError:
        raise InvalidValue(f"there is an organisation {name!r} already", field="name") from None


def set_member(organisation: Organisation, user: User, role: Group | None, *, by: User | None) -> Membership:
    """Let the user belong to the organisation with this role; None: without one.

    Raises NotPermitted, and InvalidValue for a user whom `by` may not see: members are shown to whoever manages the
    organisation, so that adding strangers would show them, and bring them under its hand.
    """
    if by is not None and not visible_users(by).filter(pk=user.pk).exists():
        raise unknown_user(user.username)
    with transaction.atomic():
        present = Membership.objects.select_for_update().filter(organisation=organisation, user=user).first()
        verb = "add" if present is None else "change"
        _require(by, f"fma_django.{verb}_membership", organisation)
        if present is not None and present.role is not None:
            _require_may_give(by, Place(organisation, present.role))
        _require_may_give(by, Place(organisation, role))
        member, _ = Membership.objects.update_or_create(
            organisation=organisation, user=user, defaults={"role": role}
        )
    return member


def unknown_user(username: str) -> InvalidValue:
    """The refusal of a user who does not exist, or whom the caller may not see: one sentence for both."""
    return InvalidValue(f"there is no user {username!r}", field="username")


def remove_member(member: Membership, *, by: User | None) -> None:
    """Raises NotPermitted, also for a member who holds more there than `by`."""
    _require(by, "fma_django.delete_membership", member.organisation)
    _require_may_give(by, Place(member.organisation, member.role))
    member.delete()


def create_role(name: str, permissions: Iterable[str], *, by: User | None) -> Group:
    """A new role. permissions: as Django writes them. Raises InvalidValue, NotPermitted."""
    _require(by, "auth.add_group")
    rows = _permissions(permissions)
    _require_all(by, {_written(row) for row in rows})
    with transaction.atomic():
        try:
            with transaction.atomic():
                role = Group.objects.create(name=name)
        except IntegrityError:
            raise InvalidValue(f"there is a role {name!r} already", field="name") from None
        role.permissions.set(rows)
    return role


def change_role(role: Group, changes: Mapping[str, Any], *, by: User | None) -> Group:
    """Change `name` and `permissions`; what is given or taken away must be held.

    Raises as `create_role`, and StillInUse for another name of a preset.
    """
    _require(by, "auth.change_group")
    with transaction.atomic():
        role = Group.objects.select_for_update().get(pk=role.pk)
        if "permissions" in changes:
            rows = _permissions(changes["permissions"])
            _require_all(by, permissions_of(role) ^ {_written(row) for row in rows})
            role.permissions.set(rows)
        if changes.get("name", role.name) != role.name:
            _require_no_preset(role)
            if Group.objects.filter(name=changes["name"]).exists():
                raise InvalidValue(f"there is a role {changes['name']!r} already", field="name")
            role.name = changes["name"]
            role.save(update_fields=["name"])
    return role


def delete_role(role: Group, *, by: User | None) -> None:
    """Raises NotPermitted; StillInUse for a preset, and for the role of a member of an organisation."""
    _require(by, "auth.delete_group")
    _require_no_preset(role)
    _require_all(by, permissions_of(role))
    try:
        role.delete()
    except ProtectedError:
        raise StillInUse("members of organisations have this role; give them another one first") from None


def permissions_of(role: Group) -> set[str]:
    """The permissions of a role, as Django writes them."""
    return {_written(row) for row in role.permissions.select_related("content_type")}


def may_manage(by: User, user: User) -> bool:
    """Whether `by` holds everything that the user holds, and may view the models that the user owns.

    Whoever changes a user could act as that user.
    """
    if by.is_superuser:
        return True
    if user.is_superuser:
        return False
    if not may(by, VIEW_MODELS) and FederatedModel.objects.filter(developer=user.pk).exists():
        return False  # owners read their models, also without a role
    held = grants_of(user)
    return all(may(by, permission) for permission in held.everywhere) and all(
        may(by, permission, organisation)
        for organisation, permissions in held.organisations.items()
        for permission in permissions
    )


def require_may_change(by: User, user: User) -> None:
    """Raise NotPermitted unless `by` may change the user, whose rights it holds then."""
    _require_may_manage(by, user, "auth.change_user")


def lock_owners() -> list[int]:
    """The active owners, of whom nobody else changes one until the transaction ends."""
    owners = User.objects.select_for_update().filter(is_superuser=True, is_active=True).order_by("pk")
    return [owner.pk for owner in owners.only("pk")]


def is_only_owner(user: User) -> bool:
    """Whether no other active user is an owner."""
    owners = User.objects.filter(is_superuser=True, is_active=True)
    return user.is_superuser and user.is_active and not owners.exclude(pk=user.pk).exists()


def require_owner_left(user: User) -> None:
    """Raise LastOwner when the installation would have no owner with the user as it is now, unsaved.

    Call it in the transaction that saves the user: others who end an owner wait.
    """
    if not (user.is_superuser and user.is_active):
        _require_another(lock_owners(), user)


def _require(by: User | None, permission: str, organisation: Organisation | None = None) -> None:
    if by is not None and not may(by, permission, organisation):
        raise NotPermitted(f"this needs the permission {permission}", permission=permission)


def _require_all(
    by: User | None, permissions: Iterable[str], organisation: Organisation | None = None
) -> None:
    if by is None:
        return
    for permission in sorted(permissions):
        if not may(by, permission, organisation):
            raise NotPermitted(
                f"nobody gives or takes what they do not hold; here that is {permission}",
                permission=permission,
            )


def _require_holds(by: User | None, roles: Iterable[Group]) -> None:
    for role in roles:
        _require_all(by, permissions_of(role))


def _require_may_give(by: User | None, place: Place) -> None:
    if place.role is not None:
        _require_all(by, permissions_of(place.role), place.organisation)


def _require_owner(by: User | None) -> None:
    if by is not None and not by.is_superuser:
        raise NotPermitted("only an owner makes an owner, or ends one")


def _require_may_manage(by: User | None, user: User, permission: str) -> None:
    if by is None:
        return
    theirs = [*Membership.objects.filter(user=user.pk).values_list("organisation", flat=True)]
    if not may(by, permission) and not (theirs and all(may(by, permission, pk) for pk in theirs)):
        raise NotPermitted(f"this needs the permission {permission}", permission=permission)
    if not may_manage(by, user):
        raise NotPermitted("the user holds permissions that you do not")


def _require_no_preset(role: Group) -> None:
    if role.name in presets.NAMES:
        raise StillInUse(
            f"{role.name!r} is one of the roles that every installation has; change what it may do"
        )


def _require_another(owners: list[int], user: User) -> None:
    if owners == [user.pk]:
        raise LastOwner(f"{user.username!r} is the only owner; make another one first")


def _set_password(user: User, password: str | None) -> None:
    if password is not None:
        try:
            validate_password(password, user)
        except ValidationError as error:
            raise InvalidValue(" ".join(error.messages), field="password") from error
    user.set_password(password)


def _check(user: User) -> None:
    try:
        user.full_clean(exclude=["password"], validate_unique=False)
    except ValidationError as error:
        field, messages = next(iter(error.message_dict.items()))
        raise InvalidValue(" ".join(messages), field=field) from error


def _permissions(names: Iterable[str]) -> list[Permission]:
    wanted = set(names)
    rows = [row for row in Permission.objects.select_related("content_type") if _written(row) in wanted]
    unknown = sorted(wanted - {_written(row) for row in rows})
    if unknown:
        raise InvalidValue(f"there is no permission {unknown[0][:80]!r}", field="permissions")
    return rows


def _written(permission: Permission) -> str:
    return f"{permission.content_type.app_label}.{permission.codename}"
