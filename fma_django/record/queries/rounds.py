"""The rounds of a model, with who answered, in a constant number of queries."""

from django.db.models import Prefetch, QuerySet

from fma_django.models import FederatedModel, ModelUpdate, Round


def rounds_of(federated_model: FederatedModel) -> QuerySet[Round]:
    """Newest first; `model_updates` are loaded without their weights, in the order in which they are aggregated."""
    return (
        Round.objects.filter(federated_model=federated_model)
        .order_by("-number")
        .select_related("federated_model", "config_version")
        .prefetch_related(Prefetch("model_updates", ModelUpdate.objects.order_by("pk")))
    )
