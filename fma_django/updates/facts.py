"""The facts that a client states of its update, beside the weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fma_core.aggregation.aggregators.aggregator import MAX_NUM_EXAMPLES
from fma_core.aggregation.strategy import Strategy
from fma_django.errors import InvalidValue
from fma_django.record.json_values import require_storable

MAX_METRICS_BYTES = 64 * 1024


INITIAL = 0  # the model before its first aggregate, where an update names what it was trained from


@dataclass(frozen=True)
class UpdateFacts:
    """base_aggregate_id: the aggregate that it was trained from, or INITIAL; None when the client does not say.

    num_examples: its weight, 1 … 2**53.
    """

    base_aggregate_id: int | None = None
    num_examples: int = 1
    metrics: dict[str, Any] = field(default_factory=dict)


def metrics_json_of(facts: UpdateFacts) -> str:
    """The metrics as JSON, once the facts have been checked. Raises InvalidValue."""
    if not 1 <= facts.num_examples <= MAX_NUM_EXAMPLES:
        raise InvalidValue(
            f"num_examples must be an integer from 1 to 2**53; found {facts.num_examples}",
            field="num_examples",
        )
    if not facts.metrics:
        return "{}"
    return require_storable(facts.metrics, field="metrics", max_bytes=MAX_METRICS_BYTES)


def require_metrics(strategy: Strategy, metrics: Mapping[str, Any]) -> None:
    """Require the numbers that the strategy's rule needs. Raises InvalidValue when one is missing or useless."""
    try:
        strategy.check_metrics(metrics)
    except ValueError as error:
        raise InvalidValue(str(error), field="metrics") from error
