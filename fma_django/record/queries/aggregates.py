"""The newest aggregates of a model, and what a client should train from."""

from dataclasses import dataclass

from fma_django.models import FederatedModel, ModelAggregate, ModelArtifact


@dataclass(frozen=True)
class LatestModel:
    """The newest weights of a model. aggregate_id: None when they are those of the artifact."""

    weights: ModelAggregate | ModelArtifact
    aggregate_id: int | None


def latest_aggregate(federated_model: FederatedModel) -> ModelAggregate | None:
    return ModelAggregate.objects.filter(federated_model=federated_model).order_by("-id").first()


def latest_model(federated_model: FederatedModel) -> LatestModel | None:
    """The newest aggregate, else the current artifact, else None."""
    aggregate = latest_aggregate(federated_model)
    if aggregate is not None:
        return LatestModel(aggregate, aggregate.pk)
    if federated_model.current_artifact is not None:
        return LatestModel(federated_model.current_artifact, None)
    return None


def newest_aggregate_ids(federated_model: FederatedModel, count: int | None) -> list[int] | None:
    """Ids of the `count` newest aggregates; None when every base counts: no bound is set, or no aggregate exists."""
    if count is None:
        return None
    newest = ModelAggregate.objects.filter(federated_model=federated_model, is_abandoned=False).order_by(
        "-id"
    )
    return list(newest.values_list("pk", flat=True)[:count]) or None


def lineage(aggregate: ModelAggregate | None) -> list[int]:
    """The ids of an aggregate and of all that it came from, the oldest first."""
    if aggregate is None:
        return []
    # One query instead of one for each: their number is that of the rounds, and their ids are small.
    parents = dict(
        ModelAggregate.objects.filter(
            federated_model=aggregate.federated_model_id, pk__lte=aggregate.pk
        ).values_list("pk", "parent_id")
    )
    ids: list[int] = []
    current: int | None = aggregate.pk
    while current is not None:
        ids.append(current)
        current = parents[current]
    return ids[::-1]


def start_of(federated_model: FederatedModel, parent: ModelAggregate | None) -> str:
    """The hash of the weights that a round with this parent starts from; "" when the model has none."""
    if parent is not None:
        return parent.sha256
    initial = initial_artifact(federated_model)
    return "" if initial is None else initial.sha256


def initial_artifact(federated_model: FederatedModel) -> ModelArtifact | None:
    """The weights that were given, rather than aggregated."""
    return federated_model.artifacts.filter(aggregate__isnull=True).order_by("pk").first()
