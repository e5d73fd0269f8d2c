"""Updates say how they were used. Columns without a value: no row is written anew."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('fma_django', '0010_upload_base_was_sent'),
    ]

    operations = [
        migrations.AddField(
            model_name='modelupdate',
            name='distance',
            field=models.FloatField(blank=True, help_text='The L2 distance of its change from that of the rule, where the rule measures distances.', null=True),
        ),
        migrations.AddField(
            model_name='modelupdate',
            name='step_norm',
            field=models.FloatField(blank=True, help_text='The L2 norm of its change, where the rule or a stage asks for it.', null=True),
        ),
        migrations.AddField(
            model_name='modelupdate',
            name='verdict',
            field=models.CharField(blank=True, choices=[('used', 'Used'), ('clipped', 'Clipped'), ('rejected', 'Rejected')], max_length=8, null=True),
        ),
        migrations.AddField(
            model_name='modelupdate',
            name='verdict_by',
            field=models.TextField(blank=True, help_text='The rule or the stage that clipped or rejected it.', null=True),
        ),
        migrations.AddField(
            model_name='modelupdate',
            name='weight_used',
            field=models.FloatField(blank=True, help_text='Its share of the result: 0 to 1. Empty where each coordinate has its own.', null=True),
        ),
    ]
