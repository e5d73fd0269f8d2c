"""The WSGI application that `fma web` serves; any other WSGI server can."""

import os
from collections.abc import Callable
from typing import Any

import django
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponseBase

from fma_api import url_prefix

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fma_api.settings")


class Application(WSGIHandler):
    """Django's, below FMA_URL_PREFIX."""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> HttpResponseBase:
        url_prefix.place(environ)
        return super().__call__(environ, start_response)


django.setup(set_prefix=False)
application = Application()
