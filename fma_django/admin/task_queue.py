"""The task queue, to look at.

Schedules and tasks name the function to run: whoever could write one here could run anything on the workers.
"""

from importlib import import_module
from typing import Any

from django.apps import apps
from django.contrib import admin
from django.http import HttpRequest

from fma_django.admin.history import HistoryAdmin


class _ReadOnlyQueueAdmin(HistoryAdmin[Any]):
    actions = ()

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return [field.name for field in self.opts.fields]


def take_over() -> None:
    """Replace django-q's plain pages, where they are registered, by read-only ones in the admin's theme."""
    if not apps.is_installed("django_q"):
        return
    import_module("django_q.admin")  # or its pages would come after ours, for whoever imports this first
    for name in ("Success", "Failure", "Schedule", "OrmQ"):
        model = apps.get_model("django_q", name)
        if not admin.site.is_registered(model):
            continue
        plain = type(admin.site.get_model_admin(model))
        if plain.__module__ != "django_q.admin":  # a project's own
            continue
        admin.site.unregister(model)
        admin.site.register(
            model, type(f"ReadOnly{name}Admin", (_ReadOnlyQueueAdmin, plain), {"actions": ()})
        )
