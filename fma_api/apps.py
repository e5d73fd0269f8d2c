"""The edge as a Django application."""

from django.apps import AppConfig

from fma_api.environment import SETTINGS


class FmaApiConfig(AppConfig):
    name = "fma_api"
    label = "fma_api"
    verbose_name = "Federated model aggregation API"
    fma_settings = frozenset(setting.name for setting in SETTINGS)
    """The names FMA_… that a Django project may set, for the system check of the record."""
