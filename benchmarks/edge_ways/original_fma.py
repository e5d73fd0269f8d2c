"""Capital One's Federated Model Aggregation (fma-django 0.0.1), configured as its repository's local settings do.

Runs in a virtual environment of its own: it needs Python 3.10 or older, Django 4.1 and numpy 1.22. DEBUG is off. Prints
a token of its developer. See serve_wsgi.py.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any
from urllib.parse import urlsplit

os.environ["DJANGO_SETTINGS_MODULE"] = __name__
FOLDER, DATABASE_URL = os.environ["EDGE_FOLDER"], os.environ["EDGE_DATABASE_URL"]


def _database() -> dict[str, Any]:
    url = urlsplit(DATABASE_URL)
    if not url.scheme:
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER + "/db.sqlite3"}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": url.path.lstrip("/"),
        "USER": url.username,
        "HOST": url.hostname,
        "PORT": url.port,
    }


SECRET_KEY = "of no use"
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django_q",
    "mptt",
    "rest_framework",
    "rest_framework.authtoken",
    "django_filters",
    "fma_django",
    "fma_django_api",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
ROOT_URLCONF = "original_fma_urls"
DATABASES = {"default": _database()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
MEDIA_ROOT = FOLDER
IS_LOCAL_DEPLOYMENT = True
USE_TZ = True
DATA_UPLOAD_MAX_MEMORY_SIZE = 100 * 1024**2
Q_CLUSTER = {"orm": "default"}
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": (
        "rest_framework.authentication.BasicAuthentication",
        "rest_framework.authentication.SessionAuthentication",
        "fma_django.authenticators.ClientAuthentication",
        "rest_framework.authentication.TokenAuthentication",
    ),
    "DEFAULT_FILTER_BACKENDS": (
        "django_filters.rest_framework.DjangoFilterBackend",
        "rest_framework.filters.OrderingFilter",
    ),
}


def prepare() -> None:
    import django

    django.setup()
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.db import connection
    from rest_framework.authtoken.models import Token

    call_command("migrate", verbosity=0)
    print(Token.objects.create(user=User.objects.create_superuser("anna")).key, flush=True)
    connection.close()


def application(environ: Any, start_response: Any) -> Any:
    return _handler()(environ, start_response)


@cache
def _handler() -> Any:
    """Made at the first request: Django cannot be set up while its settings are still being read."""
    from django.core.wsgi import get_wsgi_application

    return get_wsgi_application()
