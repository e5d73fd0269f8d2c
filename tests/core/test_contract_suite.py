"""Every built-in part keeps its contract, and the contract catches rules that do not.

A new part is found in its registry; without an entry in the tables below the first test of this file fails.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from fma_core.aggregation.aggregators import aggregators
from fma_core.aggregation.optimisers import optimisers
from fma_core.aggregation.stages import stages
from fma_core.aggregation.staleness import stalenesses
from fma_core.client_config import schedules
from fma_core.registry import Registry
from fma_core.rounds.requirements import requirements
from fma_core.selection import Candidate, filters, selectors
from fma_core.testing import (
    AggregatorContract,
    FilterContract,
    OptimiserContract,
    RequirementContract,
    ScheduleContract,
    SelectorContract,
    StageContract,
    StalenessContract,
)
from fma_core.testing.part_contract import PartContract

ORDER = "test_the_order_of_the_updates_changes_only_rounding"
WEIGHTS = "test_its_weights_of_rows_follow_the_updates"
AGREED = "test_updates_that_agree_are_the_answer"
UNCLAIMED_SHIFT = "test_a_shift_of_all_rows_that_shifts_the_answer_is_claimed"

LORA = {
    "block.lora_A.weight": np.zeros((2, 5), np.float32),
    "block.lora_B.weight": np.zeros((4, 2), np.float32),
    "block.base_layer.weight": np.zeros((4, 5), np.float32),
    "head": np.zeros((3, 2), np.float16),
    "steps": np.zeros((), np.int64),
}


@dataclass(frozen=True)
class Case:
    """Parameters of a built-in part, and what its contract must know beside them."""

    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def case(params: Mapping[str, Any] | None = None, **options: Any) -> Case:
    return Case(params or {}, options)


def clients(params: Mapping[str, Any], eligible: Mapping[str, Any], ineligible: Mapping[str, Any]) -> Case:
    """A filter, with the facts of a client that passes and of one that does not."""
    return case(params, eligible=Candidate("a", **eligible), ineligible=Candidate("b", **ineligible))


SCALES = {"is_scale_equivariant": True}
AGGREGATORS: Mapping[str, Case] = {
    "average_layers": case(**SCALES),
    "avg_values_if_data": case(**SCALES),
    "bulyan": case({"f": 1}, is_exact=True, **SCALES),
    "centered_clipping": case({"tau": 25.0, "iterations": 2}),
    "fedasync": case(
        departures={
            ORDER: "later ones are mixed in last",
            WEIGHTS: "later ones are mixed in last",
            AGREED: "the model keeps a part of itself",
        }
    ),
    "fedbuff": case(**SCALES),
    "feddyn": case(departures={AGREED: "h pushes beyond what clients agree on"}),
    "fedex_lora": case(model=LORA, departures={UNCLAIMED_SHIFT: "a round needs base weights to start from"}),
    "fednova": case(**SCALES),
    "fedprox": case({"mu": 0.1}, **SCALES),
    "fltrust": case({"root_client": "root"}, **SCALES),
    "geometric_median": case(),
    "krum": case({"f": 1}, is_exact=True, **SCALES),
    "mean": case(**SCALES),
    "median": case(is_exact=True, **SCALES),
    "multi_krum": case({"f": 1, "m": 3}, **SCALES),
    "norm_bounded_mean": case(**SCALES),
    "qfedavg": case(departures={AGREED: "the step shrinks with its own length"}),
    "scaffold": case(departures={UNCLAIMED_SHIFT: "clients need the model that c belongs to"}, **SCALES),
    "trimmed_mean": case({"beta": 0.2}, **SCALES),
}
STAGES: Mapping[str, Case] = {
    "bucketing": case({"size": 3, "seed": 7}),
    "clip_norm": case({"max_norm": 1.5}),
    "exclude": case({"patterns": ["*.running_*"]}),
    "nnm": case({"f": 2}),
    "only": case({"patterns": ["*lora_B*", "head"]}),
}
OPTIMISERS: Mapping[str, Case] = {
    "fedadagrad": case(),
    "fedadam": case({"bias_correction": True}),
    "fedavgm": case(),
    "fedyogi": case(),
    "sgd": case({"learning_rate": 0.5}),
}
REQUIREMENTS: Mapping[str, Case] = {
    "all_clients": case(),
    "none": case(),
    "require_x_updates": case({"x": 3}),
}
STALENESSES: Mapping[str, Case] = {
    "constant": case(),
    "hinge": case({"a": 2.0, "b": 3}),
    "polynomial": case({"a": 1.5}),
}
SCHEDULES: Mapping[str, Case] = {
    "constant": case({"value": 0.1}),
    "cosine": case({"initial": 0.1, "final": 0.001, "num_rounds": 30}),
    "exponential": case({"initial": 0.1, "factor": 0.9}),
    "inverse": case({"initial": 0.1, "decay": 0.5}),
    "linear": case({"initial": 10, "final": 1, "num_rounds": 20}),
    "piecewise": case({"values": [3, 2, 1], "starts": [10, 20]}),
    "step": case({"initial": 0.1, "every": 10}),
    "warmup_cosine": case({"peak": 0.1, "num_warmup": 5, "num_rounds": 30}),
}
FILTERS: Mapping[str, Case] = {
    "battery": clients({"min_level": 0.5}, {"battery": 0.6}, {"battery": 0.4}),
    "charging": clients({}, {"is_charging": True}, {"is_charging": False}),
    "client_version": clients({"at_least": "1.10"}, {"version": "1.11"}, {"version": "1.9"}),
    "free_memory": clients({"min_bytes": 10}, {"free_memory_bytes": 10}, {"free_memory_bytes": 9}),
    "min_examples": clients({"num": 10}, {"num_examples": 10}, {"num_examples": 9}),
    "min_rounds_between_turns": clients({"rounds": 2}, {}, {"rounds_since_turn": 2}),
    "min_seconds_between_turns": clients({"seconds": 60.0}, {}, {"seconds_since_turn": 59.0}),
    "seen_within": clients({"seconds": 60.0}, {"seconds_since_seen": 1.0}, {}),
    "speed": clients({"max_ping_ms": 50.0}, {"ping_ms": 50.0}, {"ping_ms": 51.0}),
    "tags": clients({"any_of": ["a"]}, {"tags": frozenset({"a"})}, {}),
    "unmetered": clients({}, {"is_unmetered": True}, {"is_unmetered": False}),
}
FEWER = "test_it_chooses_as_many_as_are_wanted"
NOBODY = "test_it_finds_somebody"
SELECTORS: Mapping[str, Case] = {
    "everyone": case(),
    "fedcs": case(
        {"deadline_s": 40.0, "model_bytes": 1000},
        departures={
            FEWER: "only those that are in time are asked",
            NOBODY: "one client that never was in time is not asked",
        },
    ),
    "least_recently_used": case(),
    "oort": case({"pacer_step_s": 2.0, "pacer_window": 3}),
    "poisson": case({"q": 0.3}, departures={NOBODY: "all may be unlucky"}),
    "power_of_choice": case(),
    "random": case(),
    "round_robin": case(),
    "stratified": case({"by": "tags", "tags": ["red", "blue"]}),
    "tifl": case({"tiers": 3}, departures={FEWER: "a tier has no more clients than it has"}),
    "weighted": case(),
}
KINDS: tuple[tuple[type[PartContract], Registry[Any], Mapping[str, Case]], ...] = (
    (AggregatorContract, aggregators, AGGREGATORS),
    (StageContract, stages, STAGES),
    (OptimiserContract, optimisers, OPTIMISERS),
    (RequirementContract, requirements, REQUIREMENTS),
    (StalenessContract, stalenesses, STALENESSES),
    (ScheduleContract, schedules, SCHEDULES),
    (FilterContract, filters, FILTERS),
    (SelectorContract, selectors, SELECTORS),
)


def _add_contracts() -> None:
    """One test class for each part that has an entry: TestMeanAggregator, TestClipNormStage, …"""
    for contract, registry, cases in KINDS:
        for name, entry in cases.items():
            title = f"Test{name.title().replace('_', '')}{registry.kind.title()}"
            members = {"part": registry.build(name, entry.params), "__module__": __name__, **entry.options}
            globals()[title] = type(title, (contract,), members)


_add_contracts()


@pytest.mark.parametrize(("contract", "registry", "cases"), KINDS, ids=lambda kind: getattr(kind, "kind", ""))
def test_every_part_has_an_entry_in_the_tables(
    contract: type[PartContract], registry: Registry[Any], cases: Mapping[str, Case]
) -> None:
    assert sorted(cases) == [name for name in registry.names() if _is_ours(registry, name)]


def _is_ours(registry: Registry[Any], name: str) -> bool:
    return registry.class_of(name).__module__.startswith("fma_core.")
