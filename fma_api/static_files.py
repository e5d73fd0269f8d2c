"""The addresses of the static files."""

from django.conf import settings
from django.contrib.staticfiles.storage import StaticFilesStorage
from django.urls import get_script_prefix


class PrefixedStaticFiles(StaticFilesStorage):
    """Puts the files below the prefix of each request (fma_api.url_prefix); Django's keeps the one of the first."""

    @property
    def base_url(self) -> str:
        return f"{get_script_prefix()}{settings.STATIC_URL.lstrip('/')}"
