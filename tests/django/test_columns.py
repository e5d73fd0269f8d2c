"""The one table of configuration columns, and all that is made from it or must agree with it."""

import inspect

from fma_api.v1.models.serializers import FederatedModelSerializer, NewFederatedModelSerializer
from fma_connect import DeveloperClient
from fma_core.rounds.columns import COLUMNS
from fma_django.admin.federated_models import FederatedModelAdmin
from fma_django.models import FederatedModel

NAMES = [column.name for column in COLUMNS]
BESIDE = ["name", "developer", "allow_aggregation", "clients", "spec"]  # what else a developer decides


def test_every_column_is_kept_with_each_round() -> None:
    assert list(FederatedModel().configuration) == NAMES
    assert {field.name for field in FederatedModel._meta.get_fields()} >= set(NAMES)


def test_a_model_has_every_column_in_the_api_and_takes_it() -> None:
    for serializer in (FederatedModelSerializer(), NewFederatedModelSerializer()):
        writable = [name for name, field in serializer.fields.items() if not field.read_only]
        assert [name for name in writable if name in NAMES] == NAMES
        assert set(writable) - set(NAMES) - {"initial_model"} == set(BESIDE)


def test_every_column_stands_in_the_form_of_the_admin_once() -> None:
    shown = [name for _, options in FederatedModelAdmin.settings_fieldsets for name in options["fields"]]
    assert sorted(shown) == sorted([*NAMES, "name", "developer", "spec"])


def test_the_client_of_developers_takes_every_column() -> None:
    keywords = inspect.signature(DeveloperClient.create_model).parameters.keys() - {"self"}
    assert keywords == {*NAMES, *BESIDE} - {"developer"}  # whoever calls
