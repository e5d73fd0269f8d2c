"""Help texts as sentences of one kind: no column of the database changes."""

import fma_django.models.federated_model
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('fma_django', '0007_rounds_count_clients'),
    ]

    operations = [
        migrations.AlterField(
            model_name='client',
            name='last_seen_on',
            field=models.DateTimeField(blank=True, editable=False, help_text='The last time that it joined, reported or sent an update.', null=True),
        ),
        migrations.AlterField(
            model_name='client',
            name='name',
            field=models.CharField(blank=True, help_text='The name that its operators gave it.', max_length=255),
        ),
        migrations.AlterField(
            model_name='evaluationround',
            name='closed_on',
            field=models.DateTimeField(blank=True, help_text='The time at which it ended.', null=True),
        ),
        migrations.AlterField(
            model_name='federatedmodel',
            name='aggregator_params',
            field=models.JSONField(blank=True, default=dict, help_text="The aggregator's parameters by name; empty: their defaults."),
        ),
        migrations.AlterField(
            model_name='federatedmodel',
            name='client_config',
            field=models.JSONField(blank=True, default=dict, help_text='The settings that clients train with in a round: any JSON object.'),
        ),
        migrations.AlterField(
            model_name='federatedmodel',
            name='client_config_overrides',
            field=models.JSONField(blank=True, default=list, help_text='Differences for some rounds, tags or clients.'),
        ),
        migrations.AlterField(
            model_name='federatedmodel',
            name='client_config_schema',
            field=models.JSONField(blank=True, help_text='The JSON Schema that client_config must keep to; empty: any.', null=True),
        ),
        migrations.AlterField(
            model_name='federatedmodel',
            name='eligibility',
            field=models.JSONField(blank=True, default=list, help_text='The clients that may be chosen at all: a list of filters, each with its name.'),
        ),
        migrations.AlterField(
            model_name='federatedmodel',
            name='requirement_args',
            field=models.JSONField(blank=True, default=list, help_text="The requirement's parameters in order."),
        ),
        migrations.AlterField(
            model_name='federatedmodel',
            name='selector',
            field=models.JSONField(blank=True, default=fma_django.models.federated_model._everyone, help_text='The rule that chooses the clients of a round, with its name.'),
        ),
        migrations.AlterField(
            model_name='federatedmodel',
            name='stages',
            field=models.JSONField(blank=True, default=list, help_text='The steps before the aggregator: a list of parts, each with its name.'),
        ),
        migrations.AlterField(
            model_name='federatedmodel',
            name='update_kind',
            field=models.CharField(choices=[('weights', 'weights'), ('delta', 'differences')], default='weights', help_text='Whether clients send their weights after training, or only the differences.', max_length=7),
        ),
        migrations.AlterField(
            model_name='modelaggregate',
            name='state_sha256',
            field=models.CharField(blank=True, db_index=True, editable=False, help_text="The SHA-256 of the strategy's state for the next round, such as an optimiser's moments.", max_length=64),
        ),
        migrations.AlterField(
            model_name='round',
            name='claimed_on',
            field=models.DateTimeField(blank=True, help_text='The last time that a worker began to aggregate it.', null=True),
        ),
        migrations.AlterField(
            model_name='round',
            name='closed_on',
            field=models.DateTimeField(blank=True, help_text='The time at which it ended.', null=True),
        ),
        migrations.AlterField(
            model_name='round',
            name='deadline_at',
            field=models.DateTimeField(blank=True, help_text='The time at which it ends, complete or not.', null=True),
        ),
        migrations.AlterField(
            model_name='round',
            name='metrics',
            field=models.JSONField(blank=True, default=dict, editable=False, help_text='The metrics of its updates, merged when it was published.'),
        ),
        migrations.AlterField(
            model_name='round',
            name='num_asked',
            field=models.PositiveIntegerField(blank=True, help_text='The number of clients chosen; null where every client may answer.', null=True),
        ),
        migrations.AlterField(
            model_name='round',
            name='num_clients',
            field=models.PositiveIntegerField(blank=True, editable=False, help_text='The number of clients that the model had at the claim.', null=True),
        ),
        migrations.AlterField(
            model_name='round',
            name='num_draws',
            field=models.PositiveIntegerField(default=0, editable=False, help_text='The number of draws of clients; each draw has its own randomness.'),
        ),
        migrations.AlterField(
            model_name='round',
            name='num_reopenings',
            field=models.PositiveIntegerField(default=0, help_text='The number of deadlines that passed without a quorum.'),
        ),
        migrations.AlterField(
            model_name='round',
            name='ready_on',
            field=models.DateTimeField(blank=True, help_text='The time at which its requirement was met.', null=True),
        ),
        migrations.AlterField(
            model_name='round',
            name='start_sha256',
            field=models.CharField(blank=True, editable=False, help_text='The SHA-256 of the weights that it started from, if there were any.', max_length=64),
        ),
        migrations.AlterField(
            model_name='round',
            name='started_on',
            field=models.DateTimeField(blank=True, help_text='The time at which its clients were chosen; its configuration stays from then on.', null=True),
        ),
        migrations.AlterField(
            model_name='round',
            name='strategy',
            field=models.JSONField(blank=True, editable=False, help_text='The strategy that aggregates it, as it was at the claim.', null=True),
        ),
        migrations.AlterField(
            model_name='round',
            name='waits_for',
            field=models.TextField(blank=True, help_text='The reason why it has not started yet.'),
        ),
    ]
