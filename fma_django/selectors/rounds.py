"""The rounds of a model, with who answered, in a constant number of queries."""

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Prefetch, QuerySet

from fma_django.models import FederatedModel, ModelUpdate, Round
from fma_django.models.round import RoundState


@dataclass(frozen=True)
class Turn:
    """What must change before a client hears another answer. round_id: None once the experiment has ended."""

    round_id: int | None = None
    started_on: datetime | None = None
    is_running: bool = False


def turn_of(federated_model: FederatedModel) -> Turn:
    """In one query, which is cheap."""
    collecting = Round.objects.filter(federated_model=federated_model, state=RoundState.COLLECTING)
    found = collecting.values_list("pk", "started_on", "federated_model__allow_aggregation").first()
    return Turn() if found is None else Turn(*found)


def rounds_of(federated_model: FederatedModel) -> QuerySet[Round]:
    """Newest first; `model_updates` are loaded without their weights, in the order in which they are aggregated."""
    return (
        Round.objects.filter(federated_model=federated_model)
        .order_by("-number")
        .select_related("federated_model", "config_version")
        .prefetch_related(Prefetch("model_updates", ModelUpdate.objects.order_by("pk")))
    )
