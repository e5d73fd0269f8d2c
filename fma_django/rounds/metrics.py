"""What the updates of a round measured, merged."""

from collections.abc import Iterable
from typing import Any

from fma_core.metrics import merge
from fma_django.models import ModelUpdate


def merged_metrics(used: Iterable[ModelUpdate]) -> dict[str, Any]:
    """Of each number among the metrics of the updates in use: its mean weighted by examples, its range, percentiles."""
    return merge((float(update.num_examples), update.metrics) for update in used)
