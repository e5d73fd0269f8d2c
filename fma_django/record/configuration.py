"""The configuration of experiments: its versions, and which of them a round runs with."""

import copy

from django.contrib.auth.models import User
from django.db.models import Q

from fma_django.models import ConfigVersion, FederatedModel, Participation, Round


def record_version(federated_model: FederatedModel, *, by: User | None = None) -> ConfigVersion:
    """Record the model's configuration as a new version, unless the newest version is the same; give the newest."""
    newest = federated_model.config_versions.order_by("-number").first()
    configuration = federated_model.configuration
    if newest is not None and newest.configuration == configuration:
        return newest
    return ConfigVersion.objects.create(
        federated_model=federated_model,
        number=1 if newest is None else newest.number + 1,
        configuration=configuration,
        changed_by=by,
    )


def as_configured(current: Round) -> FederatedModel:
    """The model of a round as its configuration was when the round began; not to be saved."""
    experiment = copy.copy(current.federated_model)
    if current.config_version is not None:
        experiment.configure(current.config_version.configuration)
    return experiment


def has_begun(current: Round) -> bool:
    """Whether somebody has relied on the configuration of the round, which then stays."""
    if current.num_asked is not None or current.num_updates:
        return True
    return Participation.objects.filter(Q(joined_on__isnull=False), round=current).exists()
