"""The metrics of a round's updates, merged."""

from collections.abc import Iterable
from typing import Any

from fma_core.metrics import merge
from fma_django.models import ModelUpdate


def merged_metrics(used: Iterable[ModelUpdate]) -> dict[str, Any]:
    """Merge each number among the metrics of these updates: its mean weighted by examples, its range, percentiles."""
    return merge((float(update.num_examples), update.metrics) for update in used)
