"""An upload remembers the spool that its parts are in; of those that are open, nobody knows it."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('fma_django', '0012_store_ownership'),
    ]

    operations = [
        migrations.AddField(
            model_name='upload',
            name='spool',
            field=models.UUIDField(blank=True, editable=False, null=True),
        ),
    ]
