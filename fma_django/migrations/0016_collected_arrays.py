"""Name the policy `collected` in the help text of a model's array policies."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('fma_django', '0015_uploads_of_developers'),
    ]

    operations = [
        migrations.AlterField(
            model_name='federatedmodel',
            name='array_policies',
            field=models.JSONField(blank=True, default=dict, help_text="The next value of each array, by pattern of its name: stepped, averaged, newest, collected or kept."),
        ),
    ]
