"""The Django application: the record of rounds and its tasks."""

from django.apps import AppConfig
from django.core.checks import register
from django.db.backends.signals import connection_created
from django.db.models.signals import post_delete, post_migrate, post_save, pre_save


class FmaDjangoConfig(AppConfig):
    name = "fma_django"
    label = "fma_django"
    verbose_name = "Federated learning"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from django.conf import settings
        from django_q.signals import post_spawn

        from fma_django import checks
        from fma_django.accounts import revocation, roles
        from fma_django.record import pooler
        from fma_django.work import clock, heartbeat, schedules

        register(checks.check_values)
        register(checks.check_names)
        connection_created.connect(pooler.look, dispatch_uid="fma_django.record.pooler.look")
        post_migrate.connect(
            roles.create_missing, sender=self, dispatch_uid="fma_django.accounts.roles.create_missing"
        )
        pre_save.connect(
            revocation.look_before,
            sender=settings.AUTH_USER_MODEL,
            dispatch_uid="fma_django.accounts.revocation.look_before",
        )
        post_save.connect(
            revocation.end_after,
            sender=settings.AUTH_USER_MODEL,
            dispatch_uid="fma_django.accounts.revocation.end_after",
        )
        post_delete.connect(
            revocation.end_sessions_of_account,
            sender="socialaccount.SocialAccount",
            dispatch_uid="fma_django.accounts.revocation.end_sessions_of_account",
        )
        post_migrate.connect(schedules.create, sender=self, dispatch_uid="fma_django.work.schedules.create")
        post_spawn.connect(heartbeat.start, dispatch_uid="fma_django.work.heartbeat.start")
        post_spawn.connect(clock.start, dispatch_uid="fma_django.work.clock.start")
