"""Developers begin uploads too, and what becomes of theirs is an artifact."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('fma_django', '0014_engine_version'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name='upload',
            name='artifact',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='uploads', to='fma_django.modelartifact'),
        ),
        migrations.AddField(
            model_name='upload',
            name='developer',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='uploads', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AlterField(
            model_name='upload',
            name='client',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='uploads', to='fma_django.client'),
        ),
        migrations.AddConstraint(
            model_name='upload',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('artifact__isnull', True), ('client__isnull', False), ('developer__isnull', True)), models.Q(('client__isnull', True), ('developer__isnull', False), ('update__isnull', True)), _connector='OR'), name='upload_of_client_or_developer'),
        ),
    ]
