"""The versions of a model's configuration, and what each of them changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import OuterRef, QuerySet, Subquery

from fma_django.models import ConfigVersion, FederatedModel


@dataclass(frozen=True)
class Change:
    before: Any
    after: Any


@dataclass(frozen=True)
class VersionWithChanges:
    """changes: what is different from the version before, by column; all of the first version is new, so none."""

    version: ConfigVersion
    changes: Mapping[str, Change]


def history_of(federated_model: FederatedModel) -> QuerySet[ConfigVersion]:
    """The versions of a model's configuration, the newest first."""
    versions = ConfigVersion.objects.filter(federated_model=federated_model)
    return versions.select_related("changed_by").order_by("-number")


def with_changes(versions: Sequence[ConfigVersion]) -> list[VersionWithChanges]:
    """Consecutive versions, newest first, with what each changed. In one query."""
    if not versions:
        return []
    oldest = versions[-1]
    before = ConfigVersion.objects.filter(
        federated_model=oldest.federated_model_id, number=oldest.number - 1
    ).first()
    return [
        VersionWithChanges(version, {} if earlier is None else _changes(earlier, version))
        for version, earlier in zip(versions, [*versions[1:], before], strict=True)
    ]


def with_newest_number(models: QuerySet[FederatedModel]) -> QuerySet[FederatedModel]:
    """The same models, each with `newest_config_number`."""
    newest = ConfigVersion.objects.filter(federated_model=OuterRef("pk")).order_by("-number")
    return models.annotate(newest_config_number=Subquery(newest.values("number")[:1]))


def newest_number(federated_model: FederatedModel) -> int | None:
    """The number of the model's newest version, if it has one."""
    if hasattr(federated_model, "newest_config_number"):
        number: int | None = federated_model.newest_config_number
        return number
    versions = federated_model.config_versions.order_by("-number")
    return versions.values_list("number", flat=True).first()


def _changes(before: ConfigVersion, after: ConfigVersion) -> dict[str, Change]:
    return {
        column: Change(before.configuration.get(column), value)
        for column, value in after.configuration.items()
        if before.configuration.get(column) != value
    }
