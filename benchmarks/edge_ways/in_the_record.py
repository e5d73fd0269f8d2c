"""Changes that HTTP does not offer, made in a server's database with fma's settings from the environment.

python in_the_record.py fill MODEL COPIES      copies of the model's first round, each with all its updates
python in_the_record.py queries TOKEN PATH…    prints how many queries each GET takes, as JSON
"""

from __future__ import annotations

import json
import os
import sys

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "fma_api.settings"
django.setup()

from django.conf import settings  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.test import Client  # noqa: E402
from django.test.utils import CaptureQueriesContext  # noqa: E402

from fma_django.models.model_update import ModelUpdate  # noqa: E402
from fma_django.models.round import Round  # noqa: E402

FIRST_NUMBER = 1_000_000  # of the copied rounds, far behind the real ones


def fill(model: int, copies: int) -> None:
    """By SQL from the real rows, so that a hundred thousand take a second."""
    original = Round.objects.get(federated_model=model, number=1)
    aggregate = original.aggregate
    assert aggregate is not None
    with transaction.atomic():
        rounds = []
        for index in range(copies):
            aggregate.pk = None
            aggregate.save(force_insert=True)
            original.pk = None
            original.number = FIRST_NUMBER + index
            original.aggregate = aggregate
            original.save(force_insert=True)
            rounds.append(original.pk)
        table = connection.ops.quote_name(ModelUpdate._meta.db_table)
        columns = [
            field.column
            for field in ModelUpdate._meta.concrete_fields
            if field.column and not field.primary_key
        ]
        theirs = {"round_id": "r.id", "applied_aggregate_id": "r.aggregate_id"}
        selected = ", ".join(theirs.get(column, f"u.{column}") for column in columns)
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {table} ({', '.join(columns)}) SELECT {selected} FROM {table} u "
                f"CROSS JOIN {Round._meta.db_table} r WHERE u.round_id = %s AND r.id BETWEEN %s AND %s",
                [Round.objects.get(federated_model=model, number=1).pk, rounds[0], rounds[-1]],
            )
    with connection.cursor() as cursor:
        # PostgreSQL does so by itself, some minutes later.
        if connection.vendor == "postgresql":
            cursor.execute("ANALYZE")


def queries(token: str, paths: list[str]) -> dict[str, int]:
    settings.ALLOWED_HOSTS = ["*"]
    client = Client(headers={"Authorization": f"Token {token}"})
    counts = {}
    for path in paths:
        client.get(path)  # what is cached for the process
        with CaptureQueriesContext(connection) as captured:
            answer = client.get(path)
        if answer.status_code != 200:
            raise SystemExit(f"GET {path}: {answer.status_code} {answer.content[:500]!r}")
        counts[path] = len(captured)
    return counts


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        fill(int(sys.argv[2]), int(sys.argv[3]))
    else:
        print(json.dumps(queries(sys.argv[2], sys.argv[3:])))
