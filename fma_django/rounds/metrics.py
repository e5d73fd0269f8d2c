"""The metrics of a round's updates, merged: of those that were used."""

from collections.abc import Iterable, Mapping
from typing import Any

from fma_core.engine import UpdateUse
from fma_core.metrics import merge
from fma_django.models import ModelUpdate


def merged_metrics(updates: Iterable[ModelUpdate], uses: Mapping[int, UpdateUse]) -> dict[str, Any]:
    """Merge each number among the metrics of the updates that count: its mean weighted by examples, its range,
    percentiles. uses: by the id of the update.
    """
    return merge((float(update.num_examples), update.metrics) for update in updates if uses[update.pk].counts)
