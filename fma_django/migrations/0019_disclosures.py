"""Remember beside the evaluations what was shown of them: they were forgotten with their model."""

import django.db.models.deletion
from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


def remember_what_was_shown(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    using = schema_editor.connection.alias
    results = apps.get_model("fma_django", "EvaluationResult").objects.using(using)
    disclosures = apps.get_model("fma_django", "Disclosure")
    shown = results.filter(is_counted=True, evaluation__state="closed", evaluation__withheld="")
    rows = shown.values_list(
        "evaluation__federated_model__developer", "evaluation", "client", "organisation"
    )
    disclosures.objects.using(using).bulk_create(
        (
            disclosures(
                observer=observer,
                evaluation=evaluation,
                client_id=client,
                contributor=f"client {client}" if organisation is None else f"organisation {organisation}",
            )
            for observer, evaluation, client, organisation in rows.iterator()
        ),
        batch_size=1000,
    )


class Migration(migrations.Migration):

    dependencies = [
        ('fma_django', '0018_roles'),
    ]

    operations = [
        migrations.CreateModel(
            name='Disclosure',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('observer', models.BigIntegerField()),
                ('evaluation', models.BigIntegerField()),
                ('contributor', models.CharField(max_length=64)),
                ('client', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='disclosures', to='fma_django.client')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('observer', 'evaluation', 'client'), name='disclosure_once_to_an_observer')],
            },
        ),
        migrations.RunPython(remember_what_was_shown, migrations.RunPython.noop),
    ]
