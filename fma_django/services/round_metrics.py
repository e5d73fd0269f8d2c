"""What the updates of a round measured, merged."""

from typing import Any

from fma_core.metrics import merge
from fma_django.models import Round
from fma_django.models.model_update import UpdateStatus


def merged_metrics(published: Round) -> dict[str, Any]:
    """Of each number among the metrics of the updates in use: its mean weighted by examples, its range, percentiles."""
    used = published.model_updates.filter(status=UpdateStatus.RUNNING).order_by("pk")
    rows = used.values_list("num_examples", "metrics")
    return merge((float(num_examples), metrics) for num_examples, metrics in rows)
