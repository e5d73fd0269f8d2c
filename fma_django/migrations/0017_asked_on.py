"""Rounds know when their aggregation was last enqueued, so that each update does not enqueue it again."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('fma_django', '0016_collected_arrays'),
    ]

    operations = [
        migrations.AddField(
            model_name='round',
            name='asked_on',
            field=models.DateTimeField(
                blank=True,
                editable=False,
                help_text='The time at which its aggregation was enqueued, until a worker takes that task.',
                null=True,
            ),
        ),
    ]
