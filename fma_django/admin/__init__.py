"""The admin: every model of the record, its history read-only, its changes through the functions that the API calls.

Left out on purpose: Disclosure, which no observer may change; IdempotencyKey, whose rows mean nothing to a person and
hold what clients keep to themselves; EvaluationResult, which only the organisation may see that it came from; and
Forwarding, which is the worker's own.
"""

from django.contrib import admin

from fma_django.admin import (
    accounts,
    client_aggregate_scores,
    clients,
    config_versions,
    evaluations,
    federated_models,
    invitations,
    model_aggregates,
    model_artifacts,
    model_updates,
    organisations,
    participations,
    reports,
    rounds,
    task_queue,
    uploads,
    workers,
)

__all__ = [
    "accounts",
    "client_aggregate_scores",
    "clients",
    "config_versions",
    "evaluations",
    "federated_models",
    "invitations",
    "model_aggregates",
    "model_artifacts",
    "model_updates",
    "organisations",
    "participations",
    "reports",
    "rounds",
    "task_queue",
    "uploads",
    "workers",
]

if admin.site.index_template is None:  # a project's own front page stays
    admin.site.index_template = "fma_django/admin/index.html"
accounts.take_over()
task_queue.take_over()
