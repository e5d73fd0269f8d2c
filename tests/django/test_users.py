"""Users and roles: nobody gives more than they hold, and an owner is always left."""

import threading
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection, connections

from fma_core.errors import FMAError
from fma_django.accounts import roles as presets
from fma_django.accounts.grants import forget_grants, grants_of, may, organisations_where
from fma_django.accounts.users import (
    Place,
    change_role,
    change_user,
    create_role,
    create_user,
    delete_role,
    delete_user,
    permissions_of,
    remove_member,
    set_member,
    visible_users,
)
from fma_django.errors import InvalidValue, LastOwner, NotPermitted, StillInUse
from fma_django.models import Membership, Organisation
from tests.records import make_model, make_user, make_user_with


def role(name: str) -> Group:
    return Group.objects.get(name=name)


@pytest.fixture
def hospital(db: None) -> Organisation:
    return Organisation.objects.create(name="hospital")


@pytest.fixture
def owner(db: None) -> User:
    return make_user("root", staff=True)


@pytest.fixture
def admin(hospital: Organisation) -> User:
    """The admin of the hospital, and of nothing else."""
    user = make_user_with(username="admin")
    set_member(hospital, user, role("organisation admin"), by=None)
    return user


@pytest.mark.parametrize("preset", presets.PRESETS, ids=lambda preset: preset.name)
def test_every_installation_has_the_presets(db: None, preset: presets.Role) -> None:
    assert permissions_of(role(preset.name)) == set(preset.permissions)


def test_a_preset_that_was_edited_stays_as_it_is(owner: User) -> None:
    change_role(role("auditor"), {"permissions": ["auth.view_user"]}, by=owner)

    presets.create_missing()

    assert permissions_of(role("auditor")) == {"auth.view_user"}


def test_permissions_are_read_in_one_statement(admin: User, django_assert_num_queries: Any) -> None:
    admin.groups.add(role("data scientist"))
    user = User.objects.get(pk=admin.pk)
    place = Organisation.objects.get().pk
    with django_assert_num_queries(1):
        assert user.has_perm(presets.RUN_EXPERIMENTS)
        assert not user.has_perm("fma_django.change_client")
        assert organisations_where(user, "fma_django.change_client") == [place]


def test_a_role_in_an_organisation_counts_there_alone(admin: User, hospital: Organisation) -> None:
    bank = Organisation.objects.create(name="bank")

    assert may(admin, "fma_django.change_client", hospital)
    assert admin.has_perm("fma_django.change_client", hospital)
    assert not may(admin, "fma_django.change_client", bank)
    assert not may(admin, "fma_django.change_client")
    assert not admin.has_perm("fma_django.change_client")


def test_who_is_not_active_may_nothing(admin: User, hospital: Organisation) -> None:
    change_user(admin, {"is_active": False}, by=None)
    admin = User.objects.get(pk=admin.pk)

    assert not may(admin, "fma_django.change_client", hospital)
    assert organisations_where(admin, "fma_django.change_client") == []


def test_nobody_gives_a_role_with_more_than_they_hold(db: None) -> None:
    operator = make_user_with("auth.add_user", "auth.change_user", role="operator")
    somebody = make_user_with()

    for given in ([role("auditor")], [role("operator"), role("organisation admin")]):
        with pytest.raises(NotPermitted, match="do not hold"):
            change_user(somebody, {"roles": given}, by=operator)
        with pytest.raises(NotPermitted, match="do not hold"):
            create_user("new", by=operator, roles=given)
    assert not User.objects.filter(username="new").exists()

    assert list(change_user(somebody, {"roles": [role("operator")]}, by=operator).groups.all()) == [
        role("operator")
    ]


def test_nobody_takes_a_role_with_more_than_they_hold(db: None) -> None:
    operator = make_user_with("auth.change_user", role="operator")
    auditor = make_user_with(role="auditor")

    with pytest.raises(NotPermitted):
        change_user(auditor, {"roles": []}, by=operator)


@pytest.mark.parametrize(
    "change", [{"email": "a@example.org"}, {"password": "correct horse 7"}, {"is_active": False}]
)
def test_nobody_changes_a_user_who_holds_more(db: None, change: dict[str, Any]) -> None:
    operator = make_user_with("auth.change_user", "auth.delete_user", role="operator")
    for held_by in (make_user_with(role="auditor"), make_user(staff=True)):
        with pytest.raises(NotPermitted, match="hold"):
            change_user(held_by, change, by=operator)
        with pytest.raises(NotPermitted, match="hold"):
            delete_user(held_by, by=operator)


def test_staff_who_may_change_users_do_not_make_themselves_owners(db: None) -> None:
    staff = make_user_with("auth.change_user", "auth.add_user", "auth.change_group", "auth.add_group")

    for change in ({"is_owner": True}, {"roles": [role("operator")]}):
        with pytest.raises(NotPermitted):
            change_user(staff, change, by=staff)
    with pytest.raises(NotPermitted):
        create_user("new", by=staff, is_owner=True)
    with pytest.raises(NotPermitted):
        create_role("all", ["auth.delete_user"], by=staff)
    with pytest.raises(NotPermitted):
        change_role(role("auditor"), {"permissions": ["auth.change_user"]}, by=staff)


def test_the_admin_of_an_organisation_manages_its_users_alone(admin: User, hospital: Organisation) -> None:
    nurse = create_user("nurse", by=admin, place=Place(hospital, role("auditor")))
    stranger = make_user_with()

    assert change_user(nurse, {"email": "n@example.org"}, by=admin).email == "n@example.org"
    assert set_member(hospital, nurse, None, by=admin).role is None
    with pytest.raises(NotPermitted):
        create_user("new", by=admin)
    with pytest.raises(NotPermitted):
        change_user(stranger, {"email": "s@e.org"}, by=admin)
    with pytest.raises(NotPermitted):  # an operator holds the task queue, too
        set_member(hospital, nurse, role("operator"), by=admin)
    with pytest.raises(NotPermitted):
        change_user(nurse, {"roles": [role("data scientist")]}, by=admin)


def test_a_member_of_two_organisations_is_changed_by_no_admin_of_one(
    admin: User, hospital: Organisation
) -> None:
    nurse = create_user("nurse", by=admin, place=Place(hospital, None))
    set_member(Organisation.objects.create(name="bank"), nurse, None, by=None)

    with pytest.raises(NotPermitted):
        change_user(nurse, {"password": "correct horse 7"}, by=admin)


def test_nobody_adds_a_user_whom_they_do_not_see(admin: User, hospital: Organisation, owner: User) -> None:
    stranger = make_user_with(username="stranger")
    for unseen in (owner, stranger):
        with pytest.raises(InvalidValue, match="there is no user"):
            set_member(hospital, unseen, None, by=admin)

    assert list(visible_users(admin)) == [admin]
    assert set_member(hospital, stranger, None, by=owner).user == stranger


def test_nobody_takes_over_the_owner_of_models_that_they_do_not_see(
    admin: User, hospital: Organisation
) -> None:
    former = make_user_with(username="former")
    make_model(former)
    set_member(hospital, former, None, by=None)

    with pytest.raises(NotPermitted, match="you do not"):
        change_user(former, {"password": "correct horse 7"}, by=admin)
    assert change_user(former, {"is_active": False}, by=make_user("root", staff=True)).is_active is False


def test_a_new_user_belongs_to_no_organisation_without_the_permission(hospital: Organisation) -> None:
    clerk = make_user_with("auth.add_user")

    with pytest.raises(NotPermitted, match="add_membership"):
        create_user("spy", by=clerk, place=Place(hospital, None))
    assert create_user("nurse", by=clerk).memberships.count() == 0


def test_no_admin_of_one_organisation_appoints_in_another(admin: User) -> None:
    bank = Organisation.objects.create(name="bank")
    member = set_member(bank, make_user_with(), None, by=None)

    with pytest.raises(NotPermitted):
        set_member(bank, admin, None, by=admin)
    with pytest.raises(NotPermitted):
        remove_member(member, by=admin)


def test_the_only_owner_stays(owner: User) -> None:
    for change in ({"is_owner": False}, {"is_active": False}):
        with pytest.raises(LastOwner):
            change_user(owner, change, by=owner)
    with pytest.raises(LastOwner):
        delete_user(owner, by=None)
    make_user(staff=True)

    assert change_user(owner, {"is_owner": False}, by=owner).is_superuser is False


def test_an_owner_who_is_not_active_is_none(owner: User) -> None:
    other = make_user(staff=True)
    change_user(other, {"is_active": False}, by=owner)

    with pytest.raises(LastOwner):
        change_user(owner, {"is_owner": False}, by=owner)


@pytest.mark.django_db(transaction=True)
@pytest.mark.postgres
def test_two_owners_do_not_end_each_other() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer at a time")
    owners = [make_user(staff=True), make_user(staff=True)]
    both = threading.Barrier(2)
    outcomes: list[str] = []

    def end(user: User) -> None:
        both.wait()
        try:
            change_user(user, {"is_owner": False}, by=None)
            outcomes.append("ended")
        except LastOwner:
            outcomes.append("kept")
        finally:
            connections.close_all()

    threads = [threading.Thread(target=end, args=(owner,)) for owner in owners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["ended", "kept"]
    assert User.objects.filter(is_superuser=True).count() == 1


def test_a_user_with_models_is_not_removed(owner: User) -> None:
    developer = make_user()
    make_model(developer)

    with pytest.raises(StillInUse, match="owns models"):
        delete_user(developer, by=owner)


def test_presets_keep_their_names_and_are_not_removed(owner: User) -> None:
    with pytest.raises(StillInUse):
        delete_role(role("auditor"), by=owner)
    with pytest.raises(StillInUse):
        change_role(role("auditor"), {"name": "reader"}, by=owner)


def test_a_role_of_a_member_is_not_removed(owner: User, hospital: Organisation) -> None:
    made = create_role("guest", [], by=owner)
    member = set_member(hospital, make_user_with(), made, by=owner)

    with pytest.raises(StillInUse):
        delete_role(made, by=owner)
    remove_member(member, by=owner)
    delete_role(made, by=owner)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: create_user("", by=None), "username"),
        (lambda: create_user("a b", by=None), "username"),
        (lambda: create_user("x" * 151, by=None), "username"),
        (lambda: create_user("root", by=None), "username"),
        (lambda: create_user("new", by=None, password="1234"), "password"),
        (lambda: create_user("new", by=None, email="nobody"), "email"),
        (lambda: create_role("auditor", [], by=None), "name"),
        (lambda: create_role("new", ["auth.fly"], by=None), "permissions"),
        (lambda: create_role("new", ["fly"], by=None), "permissions"),
    ],
)
def test_what_cannot_be_is_refused_at_its_field(owner: User, make: Any, field: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        make()
    assert refused.value.facts["field"] == field


def test_a_change_of_a_role_takes_effect_at_once(owner: User, admin: User, hospital: Organisation) -> None:
    assert may(admin, "fma_django.change_client", hospital)
    change_role(role("organisation admin"), {"permissions": []}, by=owner)

    assert grants_of(User.objects.get(pk=admin.pk)).organisations == {}


def test_what_was_read_is_forgotten(admin: User, hospital: Organisation) -> None:
    assert may(admin, "fma_django.view_client", hospital)
    Membership.objects.all().delete()
    forget_grants(admin)

    assert not may(admin, "fma_django.view_client", hospital)


def test_a_refusal_leaves_nothing_behind(db: None) -> None:
    before = User.objects.count()
    with pytest.raises(FMAError):
        create_user("new", by=make_user_with("auth.add_user"), roles=[role("auditor")])

    assert User.objects.count() == before + 1
