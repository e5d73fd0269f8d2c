"""The edge as a Django application, and the admin site that it serves."""

from django.apps import AppConfig
from django.contrib.admin.apps import SimpleAdminConfig
from django.core.checks import Tags, register

from fma_api.environment import SETTINGS


class FmaApiConfig(AppConfig):
    name = "fma_api"
    label = "fma_api"
    verbose_name = "Federated model aggregation API"
    default = True
    fma_settings = frozenset(setting.name for setting in SETTINGS)
    """The names FMA_… that a Django project may set, for the system check of the record."""

    def ready(self) -> None:
        from fma_api import checks

        register(checks.check_deployment, Tags.security, deploy=True)


class FmaAdminConfig(SimpleAdminConfig):
    """Django's admin, whose pages are made with the URLs: what serves none starts faster."""

    default_site = "fma_api.admin_site.AdminSite"
