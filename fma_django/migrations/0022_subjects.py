"""A client that enrolled with a JWT is found by its subject, also after it has rotated its credential."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('fma_django', '0021_enrolment'),
    ]

    operations = [
        migrations.AddField(
            model_name='client',
            name='subject_hash',
            field=models.CharField(blank=True, editable=False, help_text='The hash of the issuer and the subject of the JWT that it enrolled with.', max_length=64, null=True, unique=True),
        ),
    ]
