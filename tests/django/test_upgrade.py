"""A database of an earlier version is taken over with all that was under way."""

from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission, User
from django.db import connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Model
from django.utils import timezone

from fma_django.accounts.tokens import issue_token
from fma_django.errors import NotVerifiable
from fma_django.models import FederatedModel, Organisation, Round, Upload, Worker
from fma_django.rounds import claiming
from fma_django.rounds.aggregation import aggregate_round
from fma_django.rounds.verification import verify_round
from tests.django.stored import weights_of
from tests.records import WEIGHTS, aggregate_now, change_now, make_client, make_model, send_update, weights

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


@pytest.fixture
def newest_afterwards() -> Iterator[None]:
    """The newest migrations are in force again when the test is over."""
    yield
    _migrate_to_newest()


@pytest.mark.usefixtures("newest_afterwards")
def test_rounds_that_were_published_and_under_way_go_on() -> None:
    model = make_model(initial_model=WEIGHTS, requirement="require_x_updates", requirement_args=[2])
    people = [make_client(model).client for _ in range(2)]
    for value, client in zip((1.0, 3.0), people, strict=True):
        send_update(model, client, weights(value))
    published = aggregate_now(model)
    for value, client in zip((5.0, 8.0), people, strict=True):
        send_update(model, client, weights(value), base_aggregate=published)
    lease = claiming.claim(model.rounds.get(state="collecting").pk)
    assert lease is not None
    send_update(model, people[0], weights(2.0))
    Round.objects.filter(pk=lease.round_id).update(lease_expires_at=timezone.now() - timedelta(seconds=1))

    MigrationExecutor(connection).migrate([("fma_django", "0001_initial")])
    _migrate_to_newest()

    found = FederatedModel.objects.get(pk=model.pk)
    assert (found.stages, found.optimiser, found.update_kind, found.staleness) == ([], None, "weights", None)
    assert list(found.aggregates.values_list("pk", "state_sha256", "state_size_bytes")) == [
        (published.pk, "", None)
    ]
    assert found.rounds.get(number=2).strategy is None
    aggregate = aggregate_round(lease.round_id)
    assert aggregate is not None
    assert weights_of(aggregate)["b"].tolist() == [6.5, 6.5]
    with pytest.raises(NotVerifiable, match="earlier version"):
        verify_round(found, 1)
    assert verify_round(found, 2).is_equal

    change_now(found, {"optimiser": {"name": "sgd", "learning_rate": 0.5}})
    send_update(found, people[1], weights(4.0), base_aggregate=aggregate)
    send_update(found, people[0], weights(6.5), base_aggregate=aggregate)
    np.testing.assert_allclose(weights_of(aggregate_now(found))["b"], [5.875, 5.875])
    assert verify_round(found).is_equal


@pytest.mark.usefixtures("newest_afterwards")
def test_integers_of_models_that_exist_stay_averaged() -> None:
    spec = {
        "bn.num_batches_tracked": {"shape": [2], "dtype": "int64"},
        "ids": {"shape": [3], "dtype": "uint8"},
        "w": {"shape": [1], "dtype": "float32"},
    }
    model = make_model(spec=spec, array_policies={"ids": "newest"})

    MigrationExecutor(connection).migrate([("fma_django", "0008_help_texts")])
    _migrate_to_newest()

    found = FederatedModel.objects.get(pk=model.pk)
    assert found.array_policies == {"ids": "averaged"}
    change_now(found, {"furthest_base_agg": 3})


@pytest.mark.usefixtures("newest_afterwards")
def test_processes_of_the_version_before_write_rows_after_the_migration() -> None:
    model = make_model(initial_model=WEIGHTS)
    client = make_client(model).client
    send_update(model, client)
    Upload.objects.create(client=client, federated_model=model, size_bytes=1, expires_on=timezone.now())
    Worker.objects.create(name="of the version before", seen_on=timezone.now())
    Organisation.objects.create(name="hospital").members.add(model.developer)
    issue_token(model.developer)
    MigrationExecutor(connection).migrate([("fma_django", "0009_array_policies")])
    models = [kind for kind in apps.get_app_config("fma_django").get_models() if _columns(kind)]
    known = {kind: _columns(kind) for kind in models}
    _migrate_to_newest()
    added = {kind: _columns(kind) - known[kind] for kind in models if _columns(kind) != known[kind]}
    assert {Round, Upload, Worker} <= set(added)

    for kind, columns in added.items():
        _write_anew(kind, known[kind])
        fields = [field.attname for field in kind._meta.concrete_fields if field.column in columns]
        rows = list(kind._default_manager.values(*fields))
        assert rows
        assert rows == [{name: getattr(kind(), name) for name in fields}] * len(rows)


@pytest.mark.usefixtures("newest_afterwards")
def test_registered_clients_have_consented_and_roles_may_invite() -> None:
    model = make_model()
    client = make_client(model).client
    hospital_admin = Group.objects.get(name="organisation admin")
    MigrationExecutor(connection).migrate([("fma_django", "0018_roles")])
    hospital_admin.permissions.filter(codename__endswith="_invitation").delete()

    _migrate_to_newest()

    assert [*FederatedModel.objects.get(pk=model.pk).consents.all()] == [client]
    given = hospital_admin.permissions.filter(codename__endswith="_invitation")
    names = ["add_invitation", "delete_invitation", "view_invitation"]
    assert sorted(given.values_list("codename", flat=True)) == names


def _columns(kind: type[Model]) -> set[str]:
    with connection.cursor() as cursor:
        if kind._meta.db_table not in connection.introspection.table_names(cursor):
            return set()
        cursor.execute(f"SELECT * FROM {kind._meta.db_table} LIMIT 0")
        return {column[0] for column in cursor.description}


def _write_anew(kind: type[Model], columns: set[str]) -> None:
    """Write all rows of a table again, as by a process that knows these columns only."""
    table, names = kind._meta.db_table, ", ".join(f'"{name}"' for name in sorted(columns))
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"CREATE TEMPORARY TABLE kept AS SELECT {names} FROM {table}")
        cursor.execute(f"DELETE FROM {table}")
        cursor.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM kept")
        cursor.execute("DROP TABLE kept")


def _migrate_to_newest() -> None:
    executor = MigrationExecutor(connection)
    # Asked for anew: the squashed migration is not among them while one of those that it replaces is missing.
    executor.migrate(executor.loader.graph.leaf_nodes())


@pytest.mark.usefixtures("newest_afterwards")
def test_users_keep_what_they_could_do() -> None:
    Group.objects.all().delete()
    Permission.objects.all().delete()
    MigrationExecutor(connection).migrate([("fma_django", "0017_asked_on")])
    User.objects.create_user("anna")
    User.objects.create_user("olga", is_staff=True)
    User.objects.create_user("root", is_superuser=True)
    theirs = Group.objects.create(name="operator")
    theirs.user_set.add(User.objects.get(username="anna"))

    _migrate_to_newest()

    roles = {user.username: sorted(role.name for role in user.groups.all()) for user in User.objects.all()}
    assert {name: roles[name] for name in ("anna", "olga", "root")} == {
        "anna": ["data scientist", "operator (before roles)"],
        "olga": ["data scientist", "operator"],
        "root": [],
    }
    assert User.objects.get(username="anna").has_perm("fma_django.add_federatedmodel")
    assert User.objects.get(username="olga").has_perm("fma_django.use_admin_site")
    assert Group.objects.count() == 6
    assert Group.objects.get(name="operator").permissions.exists()
