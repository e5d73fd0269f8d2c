"""An upload says whether its sender named its base; of those that are open, each that has one keeps its fingerprint."""

from typing import Any

from django.db import migrations, models
from django.db.models import F


def keep_fingerprints(apps: Any, schema_editor: Any) -> None:
    apps.get_model("fma_django", "Upload").objects.update(base_was_sent=F("base_is_known"))


class Migration(migrations.Migration):

    dependencies = [
        ('fma_django', '0009_array_policies'),
    ]

    operations = [
        migrations.AddField(
            model_name='upload',
            name='base_was_sent',
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.AlterField(
            model_name='round',
            name='waits_for',
            field=models.TextField(blank=True, help_text='The reason why it has not started yet, or cannot close.'),
        ),
        migrations.RunPython(keep_fingerprints, migrations.RunPython.noop),
    ]
