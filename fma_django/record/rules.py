"""Configurations with their parts built, once for all requests of this process."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

from fma_core.aggregation.strategy import Strategy
from fma_core.arrays.codecs.json_layouts import Layout
from fma_core.arrays.spec import Spec
from fma_core.registry import Registry
from fma_core.rounds.closing import RoundRules
from fma_django.models import FederatedModel
from fma_django.models.stored_json import StoredDecoder
from fma_django.record.weights import update_layout, update_spec


@dataclass(frozen=True)
class BuiltConfiguration:
    """The parts that a configuration names. Building them raises InvalidPart, when a plugin is gone for instance."""

    experiment: FederatedModel
    strategy: Strategy
    closing: RoundRules

    @property
    def furthest_base_agg(self) -> int | None:
        return self.experiment.furthest_base_agg

    @property
    def update_schema(self) -> Any:
        return self.experiment.update_schema

    @cached_property
    def depend_on_base(self) -> bool:
        """Whether an update counts otherwise, or not at all, depending on what it was trained from."""
        return (
            self.strategy.needs_base
            or self.furthest_base_agg is not None
            or self.closing.policy.late_updates == "refuse"
        )

    @cached_property
    def chooses_clients(self) -> bool:
        return self.experiment.chooses_clients

    @cached_property
    def hopeful(self) -> RoundRules:
        """The same rules without the quorum of organisations, which needs a look at every update of a round."""
        return replace(self.closing, policy=replace(self.closing.policy, quorum_organisations=0))


def rules_of(configuration: str) -> BuiltConfiguration:
    """The rules of a configuration as its JSON text. Raises InvalidPart and InvalidStrategy."""
    return _rules_of(configuration, Registry.generation)


def wanted_of(configuration: str, spec: str | None, layout: str) -> tuple[Spec | None, Layout | None]:
    """The arrays that clients send, and their JSON layout, for a model with this spec (as its JSON text) and layout."""
    return _wanted_of(configuration, spec, layout, Registry.generation)


# By the text and not by the version's id: SQLite gives the id of a row that was rolled back to another one.
@lru_cache(maxsize=1024)
def _rules_of(configuration: str, generation: int) -> BuiltConfiguration:
    experiment = FederatedModel()
    experiment.configure(json.loads(configuration, cls=StoredDecoder))
    strategy = experiment.build_strategy()
    return BuiltConfiguration(experiment, strategy, experiment.build_round_rules(strategy))


# The specs of large models take megabytes; few models are that large, and few are trained at one time.
@lru_cache(maxsize=64)
def _wanted_of(
    configuration: str, spec: str | None, layout: str, generation: int
) -> tuple[Spec | None, Layout | None]:
    model = FederatedModel(spec=None if spec is None else json.loads(spec), weights_layout=layout)
    model.configure(json.loads(configuration, cls=StoredDecoder))
    return update_spec(model), update_layout(model)
