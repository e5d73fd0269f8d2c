"""Several API tokens a user, each with a name, a scope and an end; and the next credential of a client."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ('fma_django', '0019_disclosures'),
    ]

    operations = [
        migrations.AlterField(
            model_name='apitoken',
            name='user',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='api_tokens', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AlterField(
            model_name='apitoken',
            name='salt',
            field=models.CharField(blank=True, editable=False, help_text='For the token of a login, which is derived from it; empty for a random token.', max_length=32),
        ),
        migrations.AddField(
            # Those that are there are the tokens of logins.
            model_name='apitoken',
            name='name',
            field=models.CharField(db_default='login', default='login', max_length=100),
        ),
        migrations.AddField(
            model_name='apitoken',
            name='scope',
            field=models.CharField(choices=[('read', 'read'), ('write', 'write, but not users, roles, organisations and tokens'), ('admin', 'everything that the user may')], db_default='admin', default='admin', max_length=8),
        ),
        migrations.AddField(
            model_name='apitoken',
            name='federated_model',
            field=models.ForeignKey(blank=True, help_text='The only model that the token reaches; empty: all that the user may.', null=True, on_delete=django.db.models.deletion.CASCADE, related_name='api_tokens', to='fma_django.federatedmodel'),
        ),
        migrations.AddField(
            model_name='apitoken',
            name='expires_on',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='apitoken',
            name='last_used_on',
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
        migrations.AddConstraint(
            model_name='apitoken',
            constraint=models.UniqueConstraint(fields=('user', 'name'), name='api_token_name_once_per_user'),
        ),
        migrations.AddField(
            model_name='client',
            name='next_credential_hash',
            field=models.CharField(blank=True, editable=False, max_length=64, null=True, unique=True),
        ),
        migrations.AddField(
            model_name='client',
            name='superseded_on',
            field=models.DateTimeField(editable=False, help_text='The time from which its credential is refused, because it asked for a next one.', null=True),
        ),
    ]
