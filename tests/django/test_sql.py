"""SQL with the names of the models, checked when it is written."""

from typing import Annotated, NamedTuple

import pytest
from django.db import connection

from fma_django.models import Client, FederatedModel, ModelUpdate, Round
from fma_django.models.model_update import ACCEPTED, UpdateStatus
from fma_django.models.round import RoundState
from fma_django.record.sql import Select, Statement, insert
from tests.records import make_client, make_model


class Numbered(NamedTuple):
    number: Annotated[int, "{r.number}"]
    model: Annotated[str, "{m.name}"]
    client: Annotated[str | None, "{c.name}"] = None


JOINED = "FROM {r} JOIN {m} ON {m.id} = {r.federated_model_id} WHERE {r.state} = {collecting}"


def test_tables_columns_and_choices_are_those_of_the_models() -> None:
    statement = Statement(
        "SELECT {u.round_id} FROM {u} WHERE {u.status} IN {accepted} AND {u.status} <> {failed}",
        u=ModelUpdate,
        accepted=ACCEPTED,
        failed=UpdateStatus.FAILED,
    )
    assert statement.text == (
        'SELECT u."round_id" FROM "fma_django_modelupdate" AS u WHERE u."status" IN (0, 1, 2) AND u."status" <> 3'
    )


def test_a_column_that_does_not_exist_is_refused_at_once() -> None:
    with pytest.raises(
        AttributeError, match="Round has no column 'num_update'; it has id, federated_model_id"
    ):
        Statement("SELECT {r.num_update} FROM {r}", r=Round)


def test_a_field_that_names_no_column_is_refused_at_once() -> None:
    class Bare(NamedTuple):
        number: int

    with pytest.raises(TypeError, match="Bare.number does not say what it is read from"):
        Select(Bare, "FROM {r}", r=Round)


@pytest.mark.django_db
def test_a_row_has_its_fields_in_their_order() -> None:
    make_model(name="m")
    select = Select(Numbered, JOINED, r=Round, m=FederatedModel, collecting=RoundState.COLLECTING)
    with connection.cursor() as cursor:
        assert select.one(cursor, {}) == Numbered(number=1, model="m", client=None)
        assert select.all(cursor, {}) == [Numbered(1, "m")]


@pytest.mark.django_db
def test_a_field_with_a_default_is_read_where_its_table_is_named() -> None:
    client = make_client(make_model(name="m")).client
    Client.objects.filter(pk=client.pk).update(name="c")
    select = Select(
        Numbered,
        "FROM {r}, {m}, {c} WHERE {c.name} = %(name)s",
        r=Round,
        m=FederatedModel,
        c=Client,
    )
    with connection.cursor() as cursor:
        assert select.one(cursor, {"name": "c"}) == Numbered(1, "m", "c")
        assert select.one(cursor, {"name": "another"}) is None


def test_an_insertion_has_every_column_but_the_counted_key() -> None:
    columns = {field.attname for field in ModelUpdate._meta.concrete_fields} - {"id"}
    text = insert(ModelUpdate, returning="id").text
    assert {column for column in columns if f'"{column}"' in text and f"%({column})s" in text} == columns
    assert text.endswith(' RETURNING "id"')
    assert "%(id)s" not in text
