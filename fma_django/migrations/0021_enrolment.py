"""Invitations, clients that wait for approval, and the consent of clients to models."""

import django.db.models.deletion
from django.apps.registry import Apps
from django.conf import settings
from django.contrib.auth.management import create_permissions
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

# The presets that may now do with invitations what they may do with clients.
GIVEN = {
    "organisation admin": ("view", "add", "delete"),
    "operator": ("view", "add", "delete"),
    "compliance officer": ("view",),
    "auditor": ("view",),
}


def keep_consents(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Nobody wrote down who registered a client until now: all that are registered go on as before."""
    model = apps.get_model("fma_django", "FederatedModel")
    quote = schema_editor.connection.ops.quote_name
    registered, consents = (
        quote(model._meta.get_field(name).remote_field.through._meta.db_table) for name in ("clients", "consents")
    )
    schema_editor.execute(
        f"INSERT INTO {consents} (federatedmodel_id, client_id) SELECT federatedmodel_id, client_id FROM {registered}"
    )


def give_permissions(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    using = schema_editor.connection.alias
    groups = apps.get_model("auth", "Group").objects.using(using).filter(name__in=GIVEN)
    if not groups.exists():
        return  # the presets are made once all permissions are there
    config = apps.get_app_config("fma_django")
    config.models_module = True
    create_permissions(config, apps=apps, verbosity=0, using=using)
    config.models_module = None
    permissions = apps.get_model("auth", "Permission").objects.using(using)
    for group in groups:
        names = [f"{verb}_invitation" for verb in GIVEN[group.name]]
        group.permissions.add(*permissions.filter(content_type__app_label="fma_django", codename__in=names))


class Migration(migrations.Migration):

    dependencies = [
        ('fma_django', '0020_credentials'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name='client',
            name='awaits_approval',
            field=models.BooleanField(db_default=False, default=False, editable=False, help_text='Whether it has registered, and nobody has approved or refused it yet.'),
        ),
        migrations.AddField(
            model_name='federatedmodel',
            name='consents',
            field=models.ManyToManyField(blank=True, editable=False, help_text="The clients that registered themselves, or that their organisation's admin put here: the developer may send in their names.", related_name='consented_to', to='fma_django.client'),
        ),
        migrations.CreateModel(
            name='Invitation',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('token_hash', models.CharField(editable=False, max_length=64, unique=True)),
                ('uses', models.PositiveIntegerField(help_text='The number of clients that it is for.')),
                ('uses_left', models.PositiveIntegerField()),
                ('created_on', models.DateTimeField(auto_now_add=True)),
                ('expires_on', models.DateTimeField()),
                ('revoked_on', models.DateTimeField(blank=True, null=True)),
                ('created_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='invitations', to=settings.AUTH_USER_MODEL)),
                ('federated_models', models.ManyToManyField(related_name='invitations', to='fma_django.federatedmodel')),
                ('organisation', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='invitations', to='fma_django.organisation')),
                ('tags', models.ManyToManyField(blank=True, related_name='invitations', to='fma_django.tag')),
            ],
            options={
                'ordering': ('-id',),
            },
        ),
        migrations.AddField(
            model_name='client',
            name='invitation',
            field=models.ForeignKey(blank=True, editable=False, help_text='The invitation that it registered with first.', null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='clients', to='fma_django.invitation'),
        ),
        migrations.AddConstraint(
            model_name='client',
            constraint=models.CheckConstraint(condition=models.Q(('awaits_approval', False), ('is_active', False), _connector='OR'), name='client_not_active_while_it_awaits_approval'),
        ),
        migrations.AddConstraint(
            model_name='invitation',
            constraint=models.CheckConstraint(condition=models.Q(('uses_left__lte', models.F('uses'))), name='invitation_uses_left_at_most_all'),
        ),
        migrations.RunPython(keep_consents, migrations.RunPython.noop),
        migrations.RunPython(give_permissions, migrations.RunPython.noop),
    ]
