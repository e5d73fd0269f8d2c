"""The configuration of an experiment, from the same members that a developer sends to `POST models/`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from fma_core import client_config
from fma_core.aggregation.aggregators import aggregators
from fma_core.aggregation.strategy import Strategy
from fma_core.arrays.spec import Spec
from fma_core.errors import InvalidParameter, InvalidPart
from fma_core.registry import Registry
from fma_core.rounds.closing import RoundRules
from fma_core.rounds.columns import COLUMNS, MAX_SEED
from fma_core.rounds.policy import RoundPolicy
from fma_core.rounds.requirements import requirements
from fma_core.selection import EVERYONE, Filter, Selector, chooses_clients, filters, selectors

MEMBERS = (*(column.name for column in COLUMNS if not column.is_schema), "spec")


@dataclass(frozen=True)
class Configuration:
    """The whole configuration of an experiment, with its parts built and checked to fit together."""

    closing: RoundRules
    filters: tuple[Filter, ...]
    selector: Selector
    seed: int
    furthest_base_agg: int | None
    client_config: Mapping[str, Any]
    client_config_overrides: Sequence[Mapping[str, Any]]
    spec: Spec | None

    @classmethod
    def of(cls, members: Mapping[str, Any], *, seed: int | None = None) -> Configuration:
        """Read a configuration like the server: ignore other members, refuse misspelt ones; null is the default.

        Schemas are not checked; only the server does that.
        Raises InvalidPart, InvalidStrategy or InvalidSpec, with the fact `field`.
        """
        _refuse_misspelt(members)
        given = {name: members[name] for name in MEMBERS if members.get(name) is not None}
        with_field = _Fields(given)
        strategy = Strategy.build(
            with_field.build("aggregator", aggregators, "aggregator_params", default="mean"),
            stages=given.get("stages", ()),
            optimiser=given.get("optimiser"),
            staleness=given.get("staleness"),
            update_kind=given.get("update_kind", "weights"),
            array_policies=given.get("array_policies", {}),
        )
        requirement = None
        if given.get("requirement"):
            requirement = with_field.build("requirement", requirements, "requirement_args")
        config, overrides = given.get("client_config", {}), given.get("client_config_overrides", [])
        client_config.check(config, overrides)
        return cls(
            closing=RoundRules(RoundPolicy.from_json(given.get("round_policy", {})), strategy, requirement),
            filters=tuple(with_field.build_specs("eligibility", filters)),
            selector=with_field.build_specs("selector", selectors, default={"name": EVERYONE})[0],
            seed=_integer("seed", given.get("seed", 0) if seed is None else seed, 0, MAX_SEED),
            furthest_base_agg=(
                _integer("furthest_base_agg", given["furthest_base_agg"], 1, 2**31 - 1)
                if "furthest_base_agg" in given
                else None
            ),
            client_config=config,
            client_config_overrides=overrides,
            spec=Spec.from_json(given["spec"]) if "spec" in given else None,
        )

    @property
    def chooses_clients(self) -> bool:
        """Whether a round has a cohort; without one, every client may answer."""
        return chooses_clients(selectors.name_of(self.selector), self.filters)


class _Fields:
    """Build parts from members, and name the member in errors."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given

    def build(self, field: str, registry: Registry[Any], params: str, default: str = "") -> Any:
        try:
            return registry.build(self._given.get(field, default), self._given.get(params) or {})
        except InvalidPart as error:
            error.facts.setdefault("field", field)
            raise

    def build_specs(self, field: str, registry: Registry[Any], default: Any = ()) -> list[Any]:
        given = self._given.get(field, default)
        try:
            return [registry.build_spec(spec) for spec in ([given] if isinstance(given, Mapping) else given)]
        except InvalidPart as error:
            error.facts.setdefault("field", field)
            raise


def _integer(field: str, value: Any, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        message = f"{field} must be an integer from {least} to {most}, found {value!r:.80}"
        raise InvalidParameter(message, kind="configuration", parameter=field, field=field)
    return value


def _refuse_misspelt(members: Mapping[str, Any]) -> None:
    for name in members:
        close = [] if name in MEMBERS else get_close_matches(str(name), MEMBERS, n=1, cutoff=0.8)
        if close:
            raise InvalidParameter(
                f"there is no {name!r:.80}; did you mean {close[0]!r}?",
                kind="configuration",
                parameter=name,
                field=name,
            )
