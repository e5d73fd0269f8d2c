"""The state that a round goes on from: an optimiser's moments, for instance."""

import io
from collections.abc import Mapping
from typing import Any

from fma_core.aggregation.strategy import Strategy
from fma_core.arrays.codecs.header import LENGTH_BYTES, read_header
from fma_core.arrays.codecs.limits import Limits
from fma_core.arrays.spec import Spec
from fma_core.errors import InvalidWeights, UnreadableModel
from fma_django.models import ModelAggregate, Round
from fma_django.storage import get_store
from fma_django.storage.errors import BlobMissing

LABEL = "the state before the round"


def state_before(claimed: Round, strategy: Strategy, spec: Spec) -> str:
    """The hash of what the last aggregate kept; "" when it kept nothing, or when other parts or arrays kept it.

    Hyper-parameters may differ, and so may parts that keep nothing. The file itself says what arrays it has: the plugin
    of a part that the model no longer uses may be gone. Raises UnreadableModel.
    """
    parent, wanted = claimed.parent, strategy.state_spec(spec)
    if parent is None or not parent.state_sha256 or wanted is None:
        return ""
    if _keepers(_strategy_of(parent), strategy) != _keepers(strategy.to_json(), strategy):
        return ""
    return parent.state_sha256 if _stored_spec(parent) == wanted else ""


def _strategy_of(aggregate: ModelAggregate) -> Mapping[str, Any] | None:
    """The strategy of the round that made an aggregate; of a copy that a rewind made, its original's."""
    original: ModelAggregate | None = aggregate
    while original is not None:
        made_by = Round.objects.filter(aggregate=original).first()
        if made_by is not None:
            strategy: Mapping[str, Any] | None = made_by.strategy
            return strategy
        original = original.parent
    return None


def _keepers(strategy_json: Mapping[str, Any] | None, strategy: Strategy) -> tuple[str, ...]:
    """The names that a strategy's JSON has for those parts which keep something in `strategy`."""
    if strategy_json is None:
        return ()
    names = []
    if strategy.aggregator.states:
        names.append(strategy_json["aggregator"]["name"])
    if strategy.optimiser is not None and strategy.optimiser.states:
        names.append("" if strategy_json["optimiser"] is None else strategy_json["optimiser"]["name"])
    return tuple(names)


def _stored_spec(aggregate: ModelAggregate) -> Spec:
    store, sha256, size_bytes = get_store(), aggregate.state_sha256, aggregate.state_size_bytes or 0
    try:
        length = int.from_bytes(b"".join(store.open_range(sha256, 0, LENGTH_BYTES)), "little")
        header = b"".join(store.open_range(sha256, 0, min(LENGTH_BYTES + length, size_bytes)))
        limits = Limits(max_bytes=size_bytes)
        return read_header(io.BytesIO(header).read, size_bytes=size_bytes, limits=limits).spec
    except (BlobMissing, InvalidWeights) as error:
        raise UnreadableModel(f"{LABEL} cannot be read: {error.message}", label=LABEL) from error
