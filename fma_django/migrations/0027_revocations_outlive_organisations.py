"""An issuer stays when its organisation is deleted, so that a revoked one cannot be entered again."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ("fma_django", "0026_used_invitations"),
    ]

    operations = [
        migrations.AlterField(
            model_name="issuer",
            name="organisation",
            field=models.ForeignKey(
                null=True,
                on_delete=models.SET_NULL,
                related_name="issuers",
                to="fma_django.organisation",
            ),
        ),
    ]
