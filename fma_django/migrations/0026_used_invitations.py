"""An invitation keeps which clients have used it, and stays, revoked, when its user or its organisation is deleted."""

from django.apps.registry import Apps
from django.conf import settings
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

import fma_django.models.invitation


def note_users(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    client, use = apps.get_model("fma_django", "Client"), apps.get_model("fma_django", "Invitation").used_by.through
    invited = client.objects.filter(invitation__isnull=False).values_list("invitation", "pk")
    use.objects.bulk_create(
        (use(invitation_id=invitation, client_id=pk) for invitation, pk in invited.iterator()), batch_size=1000
    )


class Migration(migrations.Migration):

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("fma_django", "0025_verdict_by_help"),
    ]

    operations = [
        migrations.AddField(
            model_name="invitation",
            name="used_by",
            field=models.ManyToManyField(
                help_text="The clients that it has registered with a model.",
                related_name="used_invitations",
                to="fma_django.client",
            ),
        ),
        migrations.AlterField(
            model_name="invitation",
            name="created_by",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=fma_django.models.invitation.revoke,
                related_name="invitations",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AlterField(
            model_name="invitation",
            name="organisation",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=fma_django.models.invitation.revoke,
                related_name="invitations",
                to="fma_django.organisation",
            ),
        ),
        migrations.RunPython(note_users, migrations.RunPython.noop),
    ]
