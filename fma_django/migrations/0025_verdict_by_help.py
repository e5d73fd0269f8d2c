"""The help text of an update's `verdict_by` names the errors, too; no database changes."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('fma_django', '0023_client_keys'),
    ]

    operations = [
        migrations.AlterField(
            model_name='modelupdate',
            name='verdict_by',
            field=models.TextField(blank=True, help_text='The rule or stage that clipped or rejected it, or the code of the error that it would cause.', null=True),
        ),
    ]
