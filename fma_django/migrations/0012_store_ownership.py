"""The ownership of the store, the process that holds a lease, and the key by which a worker reads its tasks."""


import uuid
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('fma_django', '0011_verdicts'),
    ]

    operations = [
        migrations.AddField(
            model_name='round',
            name='lease_holder',
            field=models.CharField(blank=True, db_default='', default='', editable=False, help_text='The process that aggregates it.', max_length=255),
        ),
        migrations.AddField(
            model_name='worker',
            name='key_fingerprint',
            field=models.CharField(blank=True, db_default='', default='', editable=False, max_length=64),
        ),
        migrations.CreateModel(
            name='StoreOwnership',
            fields=[
                ('id', models.PositiveSmallIntegerField(default=1, primary_key=True, serialize=False)),
                ('owner', models.UUIDField(default=uuid.uuid4)),
                ('turn', models.UUIDField(null=True)),
                ('next_turn', models.UUIDField(null=True)),
                ('taken_on', models.DateTimeField(null=True)),
            ],
            options={
                'verbose_name': 'ownership of the store',
                'constraints': [models.CheckConstraint(condition=models.Q(('id', 1)), name='store_ownership_one_row')],
            },
        ),
    ]
