"""The Django application: the record of rounds and its tasks."""

from django.apps import AppConfig
from django.core.checks import register
from django.db.models.signals import post_migrate


class FmaDjangoConfig(AppConfig):
    name = "fma_django"
    label = "fma_django"
    verbose_name = "Federated learning"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from django_q.signals import post_spawn

        from fma_django import checks
        from fma_django.accounts import roles
        from fma_django.work import clock, heartbeat, schedules

        register(checks.check_values)
        register(checks.check_names)
        post_migrate.connect(
            roles.create_missing, sender=self, dispatch_uid="fma_django.accounts.roles.create_missing"
        )
        post_migrate.connect(schedules.create, sender=self, dispatch_uid="fma_django.work.schedules.create")
        post_spawn.connect(heartbeat.start, dispatch_uid="fma_django.work.heartbeat.start")
        post_spawn.connect(clock.start, dispatch_uid="fma_django.work.clock.start")
