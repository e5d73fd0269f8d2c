"""A plain Django view, the measure of small posts: it stores the body in a file and inserts one row.

No middleware, no authentication, no check, no fsync; the connection to the database is kept. See serve_wsgi.py.
"""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

import django
import environ
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.db import connection, models
from django.http import HttpRequest, JsonResponse
from django.urls import path

BODIES, DATABASE_URL = Path(os.environ["EDGE_FOLDER"]), os.environ["EDGE_DATABASE_URL"]


def _database() -> dict[str, object]:
    if DATABASE_URL:
        return {**environ.Env.db_url_config(DATABASE_URL), "CONN_MAX_AGE": None}
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(BODIES / "plain.sqlite3"),
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    }


settings.configure(
    SECRET_KEY="of no use",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    DATABASES={"default": _database()},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
)
django.setup()


class Update(models.Model):
    federated_model = models.IntegerField(db_index=True)
    name = models.CharField(max_length=64)
    size_bytes = models.BigIntegerField()
    created_on = models.DateTimeField(auto_now_add=True)

    class Meta:
        app_label = "plain_django"

    def __str__(self) -> str:
        return self.name


def store(request: HttpRequest) -> JsonResponse:
    name = uuid4().hex
    body = request.body
    (BODIES / name).write_bytes(body)
    update = Update._default_manager.create(
        federated_model=int(request.GET["federated_model"]), name=name, size_bytes=len(body)
    )
    return JsonResponse({"id": update.pk, "name": name}, status=201)


urlpatterns = [path("updates/", store)]


def prepare() -> None:
    with connection.schema_editor() as editor:
        editor.create_model(Update)
    connection.close()


application = WSGIHandler()
