"""The row by which a database is known in its store."""


import uuid
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('fma_django', '0011_verdicts'),
    ]

    operations = [
        migrations.CreateModel(
            name='StoreOwnership',
            fields=[
                ('id', models.PositiveSmallIntegerField(default=1, primary_key=True, serialize=False)),
                ('owner', models.UUIDField(default=uuid.uuid4)),
                ('turn', models.UUIDField(null=True)),
                ('next_turn', models.UUIDField(null=True)),
            ],
            options={
                'verbose_name': 'ownership of the store',
                'constraints': [models.CheckConstraint(condition=models.Q(('id', 1)), name='store_ownership_one_row')],
            },
        ),
    ]
