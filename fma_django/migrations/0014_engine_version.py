"""Rounds name the version of the arithmetic that aggregates them; those that are published have the first."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('fma_django', '0013_upload_spool'),
    ]

    operations = [
        migrations.AddField(
            model_name='round',
            name='engine_version',
            field=models.PositiveSmallIntegerField(
                db_default=1, default=1, editable=False, help_text='The version of the arithmetic that aggregates it.'
            ),
        ),
    ]
