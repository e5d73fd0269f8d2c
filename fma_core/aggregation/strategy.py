"""A strategy: the parts that turn the updates of a round into the next model.

    x' = x + optimiser(aggregator(stages(Δ))),   Δ_i = the change that client i made

The parts are chosen by name, one by one. Whether they can be combined is checked here, when a model is saved, and never
in the middle of a round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, cast, get_args

from fma_core.aggregation.aggregators import Aggregator, UpdateKind, aggregators
from fma_core.aggregation.optimisers import Optimiser, optimisers
from fma_core.aggregation.stages import ArrayStage, RowStage, Stage, stages
from fma_core.aggregation.staleness import Staleness, stalenesses
from fma_core.arrays import dtypes
from fma_core.arrays.policies import DEFAULT_POLICIES, ArrayPolicies, Policy, invalid_policy
from fma_core.arrays.spec import ArraySpec, Spec
from fma_core.errors import InvalidPart, InvalidStrategy
from fma_core.parameters import MAX_FLOAT

Role = Policy | Literal["computed"]
SENT: frozenset[Role] = frozenset({"stepped", "averaged", "newest", "collected"})


@dataclass(frozen=True)
class Strategy:
    """An aggregator, the stages before it, the optimiser after it, a discount for old updates, and the kind of updates.

    update_kind: "weights" when clients send their weights after training, "delta" when they send only the change.
    policies: how the next value of each array comes from those that clients send.
    Raises InvalidStrategy, which names the field, for parts that cannot be combined.

    >>> import numpy as np
    >>> from fma_core.aggregation.aggregators import Median
    >>> from fma_core.aggregation.optimisers import Sgd
    >>> from fma_core.in_memory import fold_arrays
    >>> half_way = Strategy(Median(), optimiser=Sgd(learning_rate=0.5))
    >>> fold_arrays(half_way, [{"w": np.array([8.0])}], start={"w": np.array([0.0])})["w"]
    array([4.])
    """

    aggregator: Aggregator[Any]
    stages: tuple[Stage, ...] = ()
    optimiser: Optimiser | None = None
    staleness: Staleness | None = None
    update_kind: UpdateKind = "weights"
    policies: ArrayPolicies = DEFAULT_POLICIES

    def __post_init__(self) -> None:
        self._require_update_kind()
        name = aggregators.name_of(self.aggregator)
        if self.optimiser is not None and not self.aggregator.takes_optimiser:
            raise _refused("optimiser", f"{name} takes the whole step itself; it cannot have an optimiser")
        if self.staleness is not None and not self.aggregator.takes_staleness:
            raise _refused(
                "staleness", f"{name} gives every update its own weight; it cannot discount old ones"
            )
        for stage in self.row_stages:
            what = _STAGES.name_of(stage)
            if not self.aggregator.takes_clipped_rows:
                raise _refused("stages", f"{name} needs the rows as they were sent; {what} would change them")
            if stage.mixes and not self.aggregator.takes_mixed_rows:
                raise _refused("stages", f"{name} must know whose each row is; {what} mixes them")
            if stage.mixes and self.staleness is not None:
                raise _refused(
                    "staleness", f"{what} mixes updates of different ages; it cannot go with a discount"
                )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Strategy:
        """Build the strategy that `to_json` wrote. Raises InvalidPart (with the fact `field`) or InvalidStrategy."""
        return cls.build(
            _part(aggregators, value["aggregator"], "aggregator"),
            stages=value["stages"],
            optimiser=value["optimiser"],
            staleness=value["staleness"],
            update_kind=value["update_kind"],
            array_policies=value.get("array_policies"),
        )

    @classmethod
    def build(
        cls,
        aggregator: Aggregator[Any],
        *,
        stages: object = (),
        optimiser: Mapping[str, Any] | None = None,
        staleness: Mapping[str, Any] | None = None,
        update_kind: str = "weights",
        array_policies: Mapping[str, Any] | None = MappingProxyType({}),
    ) -> Strategy:
        """Build a strategy; the other parts are specs: {"name": …, and its parameters}. Raises as `from_json`.

        stages: a list or tuple of specs; anything else, as JSON may hold, is refused.
        array_policies: None for a round of before there were any, which steps every array.
        """
        if not isinstance(stages, list | tuple):
            raise _refused("stages", "must be a list of parts, each with its name")
        return cls(
            aggregator,
            stages=tuple(_part(_STAGES, stage, "stages") for stage in stages),
            optimiser=None if optimiser is None else _part(optimisers, optimiser, "optimiser"),
            staleness=None if staleness is None else _part(stalenesses, staleness, "staleness"),
            update_kind=cast("UpdateKind", update_kind),
            policies=(
                ArrayPolicies.before_policies()
                if array_policies is None
                else ArrayPolicies.of(array_policies)
            ),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "aggregator": aggregators.spec_of(self.aggregator),
            "stages": [_STAGES.spec_of(stage) for stage in self.stages],
            "optimiser": None if self.optimiser is None else optimisers.spec_of(self.optimiser),
            "staleness": None if self.staleness is None else stalenesses.spec_of(self.staleness),
            "update_kind": self.update_kind,
            "array_policies": self.policies.to_json() if self.policies.has_defaults else None,
        }

    @cached_property
    def row_stages(self) -> tuple[RowStage, ...]:
        return tuple(stage for stage in self.stages if isinstance(stage, RowStage))

    @property
    def min_updates(self) -> int:
        """The number of updates that a round must have before the rule can give an answer."""
        minimum = max(1, self.aggregator.min_updates)
        for stage in reversed(self.stages):
            minimum = stage.min_updates(minimum)
        return minimum

    @property
    def acts_on_weights(self) -> bool:
        """Whether the rule's rows are the weights that were sent, and its answer is the next model."""
        return (
            self.aggregator.acts_on_weights
            and self.update_kind == "weights"
            and self.optimiser is None
            and not self.row_stages
        )

    @property
    def is_translation_equivariant(self) -> bool:
        """Whether the rule gives the same model when all its rows are shifted by the model before the round."""
        return (
            self.aggregator.is_translation_equivariant
            and self.optimiser is None
            and all(stage.is_translation_equivariant for stage in self.row_stages)
        )

    @property
    def measures_distances(self) -> bool:
        """Whether the rule or a stage decides by inner products of rows."""
        return self.aggregator.measures_distances or any(
            stage.measures_distances for stage in self.row_stages
        )

    @property
    def needs_start(self) -> bool:
        """Whether a round needs a model to start from.

        Rules that give the same answer wherever the model is can begin with the weights that clients bring. All others
        must know the changes, or the arrays to keep.
        """
        return (
            self.update_kind == "delta"
            or not (self.acts_on_weights or self.is_translation_equivariant)
            or any(isinstance(stage, ArrayStage) for stage in self.stages)
            or self.policies.keeps_any
        )

    @property
    def measures_from_bases(self) -> bool:
        """Whether a row is the change of the weights that its client trained from, which the round must then read."""
        return (
            self.update_kind == "weights"
            and not self.acts_on_weights
            and self.aggregator.relative_to == "base"
        )

    @property
    def needs_base(self) -> bool:
        """Whether the result depends on the model that each client trained from, which an update must then name."""
        return self.measures_from_bases or self.depends_on_ages

    @property
    def depends_on_ages(self) -> bool:
        """Whether the weight of an update depends on the age of its base."""
        return self.staleness is not None or self.aggregator.weighs_by_age

    def reads_bases(self, spec: Spec) -> bool:
        """Whether a round reads the weights that each client trained from, for a model of this spec."""
        if self.update_kind == "weights":
            return self.measures_from_bases
        # The values of these arrays are the changes that were sent, added to what they were changes of.
        return not {"averaged", "newest"}.isdisjoint(
            role for array, role in self.roles(spec).items() if spec.by_name[array].dtype in dtypes.FLOATS
        )

    def reads_start(self, spec: Spec) -> bool:
        """Whether a round reads the model that it starts from, for a model of this spec."""
        return not self.acts_on_weights or not {"kept", "collected", "computed"}.isdisjoint(
            self.roles(spec).values()
        )

    def check_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Check that the metrics have the numbers that the rule requires. Raises ValueError."""
        for name in self.aggregator.required_metrics:
            value = metrics.get(name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) <= MAX_FLOAT:
                raise ValueError(
                    f"metrics must have {name!r}, a finite number, for the aggregator "
                    f"{aggregators.name_of(self.aggregator)}; found {value!r:.80}"
                )
            try:
                self.aggregator.check_metric(name, float(value))
            except ValueError as error:
                raise ValueError(f"metrics: {error}") from error

    @property
    def states(self) -> dict[str, float]:
        """The states kept from round to round, "aggregator.<state>" and "optimiser.<state>": initial values."""
        kept = {f"aggregator.{name}": value for name, value in self.aggregator.states.items()}
        if self.optimiser is not None:
            kept |= {f"optimiser.{name}": value for name, value in self.optimiser.states.items()}
        return kept

    def policy_of(self, array: str) -> Policy:
        """The policy of an array: that of the model, and `kept` for what a stage leaves out."""
        if all(stage.includes(array) for stage in self.stages if isinstance(stage, ArrayStage)):
            return self.policies.policy_of(array)
        return "kept"

    def roles(self, spec: Spec) -> dict[str, Role]:
        """The role of each array of a model: its policy, or that it is computed from others.

        Integers and booleans are averaged where they would be stepped.
        Raises InvalidStrategy when no array would be sent, or an array that the rule needs would not be, or collected.
        """
        computed = self.aggregator.computed_arrays(spec)
        roles = {
            array.name: "computed" if array.name in computed else self._role_of(array)
            for array in spec.arrays
        }
        if SENT.isdisjoint(roles.values()):
            raise _refused("stages", "no array of the model's spec would be sent and aggregated")
        for array, others in computed.items():
            for other in others:
                if roles[other] not in SENT:
                    raise _refused(
                        "stages", f"array {array!r} is computed from {other!r}, which must be sent"
                    )
                if roles[other] == "collected":
                    raise _refused(
                        "array_policies",
                        f"array {array!r} is computed from {other!r}, which cannot be collected: one row is too little",
                    )
        return roles

    def check_spec(self, spec: Spec) -> None:
        """Check that the strategy has a way to aggregate each array of a model.

        Raises InvalidStrategy as `roles`, and InvalidParameter for policies that do not fit the arrays or are missing.
        """
        self.roles(spec)
        self.policies.check(spec)
        for array in spec.arrays:
            if self.policy_of(array.name) == "stepped" and _may_be_opaque(array):
                raise invalid_policy(
                    f"array {array.name!r} holds {array.dtype}, and the model does not say what they mean: choose "
                    '"averaged" for counters and quantised numbers, whose rounded mean is meant; "newest", "collected" '
                    'or "kept" for bytes, codes and indices, whose mean is nonsense',
                    pattern=array.name,
                )

    def _role_of(self, array: ArraySpec) -> Role:
        policy = self.policy_of(array.name)
        return "averaged" if policy == "stepped" and array.dtype not in dtypes.FLOATS else policy

    def update_spec(self, spec: Spec) -> Spec:
        """The arrays that a client of a model of this spec sends: those not kept, and payloads of those stepped.

        Of a collected array it sends one value, which is one row of it.
        """
        roles = self.roles(spec)
        sent = [
            ArraySpec(array.name, array.shape[1:], array.dtype) if roles[array.name] == "collected" else array
            for array in spec.arrays
            if roles[array.name] in SENT
        ]
        if sent == list(spec.arrays) and not self.aggregator.payloads:
            return spec
        extra = [
            ArraySpec(payload_name(payload, array.name), array.shape, array.dtype)
            for payload in self.aggregator.payloads
            for array in sent
            if roles[array.name] == "stepped"
        ]
        return Spec(tuple(sorted([*sent, *extra], key=lambda array: array.name)))

    def state_spec(self, spec: Spec) -> Spec | None:
        """The arrays of the state kept with each aggregate, all of them float64; None when there is no state."""
        roles = self.roles(spec)
        arrays = [
            ArraySpec(state_name(state, array.name), array.shape, "float64")
            for state in self.states
            for array in spec.arrays
            if roles[array.name] == "stepped"
        ]
        if not arrays:
            return None
        arrays.append(ArraySpec(NUM_STEPS, (), "int64"))
        return Spec(tuple(sorted(arrays, key=lambda array: array.name)))

    def _require_update_kind(self) -> None:
        kinds = get_args(UpdateKind)
        if self.update_kind not in kinds:
            raise _refused(
                "update_kind", f"must be one of {', '.join(kinds)}; found {self.update_kind!r:.80}"
            )
        if self.update_kind not in self.aggregator.update_kinds:
            raise _refused(
                "update_kind",
                f"{aggregators.name_of(self.aggregator)} needs the weights themselves; clients cannot send "
                f"{self.update_kind!r}",
            )


# The number of steps that a state has seen: an array of shape () in its file.
NUM_STEPS = "num_steps"


def payload_name(payload: str, array: str) -> str:
    """The name, in an update, of a payload's array for an array of the model."""
    return f"{payload}/{array}"


def state_name(state: str, array: str) -> str:
    """The name, in a state file, of a state's array for an array of the model."""
    return f"{state}/{array}"


_STAGES = stages


def _part(registry: Any, spec: Mapping[str, Any], field: str) -> Any:
    try:
        return registry.build_spec(spec)
    except InvalidPart as error:
        error.facts.setdefault("field", field)
        raise


def _may_be_opaque(array: ArraySpec) -> bool:
    """Whether these may be integers whose mean means nothing: booleans are votes, and a single number is a counter."""
    if array.dtype in dtypes.FLOATS or array.dtype == "bool":
        return False
    return array.num_parameters > 1 or array.dtype in {"uint8", "int8"}


def _refused(field: str, what: str) -> InvalidStrategy:
    return InvalidStrategy(what, field=field)
