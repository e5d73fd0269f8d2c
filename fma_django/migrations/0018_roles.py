"""Roles, and one in each organisation that a user belongs to. Users keep what they could do until now."""

import django.db.models.deletion
from django.apps.registry import Apps
from django.conf import settings
from django.contrib.auth.management import create_permissions
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from fma_django.accounts import roles


def give_roles(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Everybody could run experiments; staff could change those of all over the API, and do all if superuser."""
    using = schema_editor.connection.alias
    users = apps.get_model("auth", "User").objects.using(using)
    if not users.filter(is_superuser=False).exists():
        return  # an empty database: the presets are made once all permissions are there
    for label in ("auth", "fma_django"):
        config = apps.get_app_config(label)
        config.models_module = True
        create_permissions(config, apps=apps, verbosity=0, using=using)
        config.models_module = None
    groups = apps.get_model("auth", "Group").objects.using(using)
    for group in groups.filter(name__in=roles.NAMES):  # of the installation's own, with permissions of its own
        group.name = f"{group.name} (before roles)"
        group.save()
    roles.create_missing(using=using, apps=apps)
    for name, had_it in (
        ("data scientist", {"is_superuser": False}),
        ("operator", {"is_superuser": False, "is_staff": True}),
    ):
        groups.get(name=name).user_set.add(*users.filter(**had_it))


class Migration(migrations.Migration):

    dependencies = [
        ('auth', '0012_alter_user_first_name_max_length'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ('fma_django', '0017_asked_on'),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.CreateModel(
                    name='Membership',
                    fields=[
                        ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                        ('organisation', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='memberships', to='fma_django.organisation')),
                        ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='memberships', to=settings.AUTH_USER_MODEL)),
                    ],
                    options={
                        'db_table': 'fma_django_organisation_members',
                        'ordering': ('organisation', 'user'),
                        'unique_together': {('organisation', 'user')},
                    },
                ),
                migrations.AlterField(
                    model_name='organisation',
                    name='members',
                    field=models.ManyToManyField(blank=True, related_name='organisations', through='fma_django.Membership', to=settings.AUTH_USER_MODEL),
                ),
            ],
            database_operations=[],
        ),
        migrations.AddField(
            model_name='membership',
            name='role',
            field=models.ForeignKey(blank=True, help_text="What the user may do with the organisation's clients; empty: read their own results only.", null=True, on_delete=django.db.models.deletion.PROTECT, related_name='memberships', to='auth.group'),
        ),
        migrations.AlterModelOptions(
            name='organisation',
            options={'ordering': ('name',), 'permissions': (('use_admin_site', 'Can use the admin site'),)},
        ),
        migrations.RunPython(give_roles, migrations.RunPython.noop),
    ]
