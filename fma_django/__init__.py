"""The record of federated learning on Django: its tables, what changes them, what reads them, and its tasks."""

from fma_core import aliases

# Tasks that an earlier version put into the queue, and a Django project's own Q_CLUSTER, name them so.
aliases.install(
    aliases.Alias("fma_django.tasks", "fma_django.work.tasks", since="0.2", until="0.4"),
    aliases.Alias("fma_django.broker", "fma_django.work.broker", since="0.2", until="0.4"),
)
