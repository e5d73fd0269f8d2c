"""How each array of a model is aggregated; the integers of models that exist are averaged, as they were."""

from typing import Any

from django.db import migrations, models

MAX_NAMES = 1024


def declare_integers(apps: Any, schema_editor: Any) -> None:
    """Say that integers are averaged, where a new model would have to say what they mean.

    A model of more such arrays than may be named keeps its defaults, and its developer is asked at the next change.
    """
    FederatedModel = apps.get_model("fma_django", "FederatedModel")
    for federated_model in FederatedModel.objects.filter(spec__isnull=False).only("spec").iterator():
        policies = {
            name: "averaged"
            for name, array in federated_model.spec.items()
            if array["dtype"].startswith(("int", "uint")) and not name.endswith("num_batches_tracked")
        }
        if 0 < len(policies) <= MAX_NAMES:
            FederatedModel.objects.filter(pk=federated_model.pk).update(array_policies=policies)


class Migration(migrations.Migration):

    dependencies = [
        ('fma_django', '0008_help_texts'),
    ]

    operations = [
        migrations.AddField(
            model_name='federatedmodel',
            name='array_policies',
            field=models.JSONField(blank=True, default=dict, help_text="How each array's next value is made, by pattern of its name: stepped, averaged, newest or kept."),
        ),
        migrations.AddField(
            model_name='upload',
            name='base_is_known',
            field=models.BooleanField(default=False),
        ),
        migrations.RunPython(declare_integers, migrations.RunPython.noop),
    ]
