"""The contracts can fail: a part that breaks one promise is caught by the check of that promise, which says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Annotated, Any, ClassVar

import numpy as np
import pytest

from fma_core.aggregation.aggregators import Aggregator, AvgValuesIfData, Block, Float64, Rows, RowWeights
from fma_core.aggregation.optimisers import Optimiser
from fma_core.aggregation.stages import RowMap, RowStage
from fma_core.aggregation.staleness import Staleness
from fma_core.parameters import Bounds
from fma_core.rounds.requirements import Requirement, RoundProgress
from fma_core.testing import (
    AggregatorContract,
    OptimiserContract,
    RequirementContract,
    StageContract,
    StalenessContract,
    part_contract,
)

CALLS = count()


@dataclass(frozen=True)
class PlainMean(Aggregator[Any]):
    """The mean of the rows: sound, and what the broken ones below are made of."""

    source: ClassVar[str] = "nobody's"
    is_translation_equivariant: ClassVar[bool] = True

    def combine(self, block: Block, decision: Any) -> Float64:
        return block.weighted_sum(np.ones(block.num_rows)) / block.num_rows


class FirstCountsTwice(PlainMean):
    def combine(self, block, decision):
        weights = np.ones(block.num_rows)
        weights[0] = 2
        return block.weighted_sum(weights) / weights.sum()


class LooksAtTheWholeBlock(PlainMean):
    def combine(self, block, decision):
        found = super().combine(block, decision)
        return found - found.mean()


class CountsItsCalls(PlainMean):
    def combine(self, block, decision):
        object.__setattr__(self, "calls", getattr(self, "calls", 0) + 1)
        return super().combine(block, decision)


class RemembersInItsModule(PlainMean):
    def measure(self, rows):
        return next(CALLS)

    def combine(self, block, decision):
        return super().combine(block, decision) + decision


class Unseeded(PlainMean):
    def combine(self, block, decision):
        return super().combine(block, decision) + np.random.default_rng().normal(size=block.num_columns)


class Halved(PlainMean):
    def combine(self, block, decision):
        return super().combine(block, decision) / 2


class UnclaimedMean(PlainMean):
    is_translation_equivariant = False


class NotANumber(PlainMean):
    def combine(self, block, decision):
        return np.full(block.num_columns, np.nan)


class OneColumnTooMany(PlainMean):
    def combine(self, block, decision):
        return np.zeros(block.num_columns + 1)


class DecidesOnALambda(PlainMean):
    def measure(self, rows):
        return lambda values: values


class DecidesBySomethingElse(PlainMean):
    """Decides by a value outside the rule and the decision, so that another process does not have it."""

    def measure(self, rows):
        return Offset(rows.num_rows)

    def combine(self, block, decision):
        return super().combine(block, decision) + decision.value


class Offset:
    def __init__(self, value: float) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        return Offset, (0.0,)


class StacksAllRows(PlainMean):
    def combine(self, block, decision):
        return np.stack([block.row(index) for index in range(block.num_rows)]).mean(axis=0)


class TakesTheMatrixUnannounced(PlainMean):
    def combine(self, block, decision):
        return block.matrix().mean(axis=0)


class AlwaysOneMore(PlainMean):
    def combine(self, block, decision):
        return super().combine(block, decision) + 1


class DividesByExamples(PlainMean):
    def measure(self, rows):
        return 1 // sum(rows.num_examples)


class FailsOnEnormousRows(PlainMean):
    def measure(self, rows):
        return int(rows.squared_norms().max())


class DoublesTheLength(PlainMean):
    def measure(self, rows):
        return np.sqrt(rows.squared_norms()).max()

    def combine(self, block, decision):
        return super().combine(block, decision) * decision


class NeedsFive(PlainMean):
    min_updates = 5


class NeedsHalfAnUpdate(PlainMean):
    min_updates = 0.5


class PayloadWithASlash(PlainMean):
    payloads = ("control/variate",)


class StateOfInfinity(PlainMean):
    @property
    def states(self):
        return {"v": float("inf")}


class RefusesOrdinaryMetrics(PlainMean):
    required_metrics = ("loss",)

    def check_metric(self, name, value):
        raise AssertionError("loss must be negative")


class TellsClientsAnArray(PlainMean):
    @property
    def client_config(self):
        return {"mu": np.zeros(3)}


class CountsByHalves(PlainMean):
    def integer_weights(self, num_examples):
        return [number / 2 for number in num_examples]


class WeighsBelowZero(PlainMean):
    def row_weights(self, decision, num_rows):
        return RowWeights(np.linspace(-1, 2, num_rows))


class WeighsByPlaces(PlainMean):
    def row_weights(self, decision, num_rows):
        return RowWeights(np.arange(1.0, num_rows + 1))


class WeighsTwice(PlainMean):
    def row_weights(self, decision, num_rows):
        return RowWeights(np.full(num_rows, 2 / num_rows))


class NeedsARowOfItsOwn(PlainMean):
    def combine(self, block, decision):
        if type(block).__name__ == "MixedBlock":
            raise TypeError("not my row")
        return super().combine(block, decision)


@dataclass
class NotFrozen(Aggregator[Any]):
    def combine(self, block, decision):
        return block.row(0)


@dataclass(frozen=True)
class WithoutDescriptions(PlainMean):
    """The mean again."""

    beta: Annotated[float, Bounds(ge=0)] = 0.0


@dataclass(frozen=True)
class TakesAnything(PlainMean):
    """The mean again."""

    beta: Annotated[float, Bounds(ge=0), "nothing"] = 0.0

    def __post_init__(self) -> None:
        """Forgets what every part checks."""


@dataclass(frozen=True)
class WithoutSource(PlainMean):
    """The mean again."""

    source: ClassVar[str] = ""


class LosesItself(PlainMean):
    def __reduce__(self):
        return WithoutSource, ()


def bad(part: Any, check: str, message: str, /, **options: Any) -> Any:
    name = getattr(part, "__name__", None) or type(part).__name__
    return pytest.param(part, check, message, options, id=f"{name}-{check}")


BROKEN_RULES = [
    bad(FirstCountsTwice, "test_the_order_of_the_updates_changes_only_rounding", "order of the updates"),
    bad(LooksAtTheWholeBlock, "test_executors_and_cuts_change_no_bit", "nothing but its block"),
    bad(CountsItsCalls, "test_it_keeps_nothing_but_its_state", "must not change the rule"),
    bad(RemembersInItsModule, "test_it_keeps_nothing_but_its_state", "belongs into `states`"),
    bad(RemembersInItsModule, "test_the_same_updates_give_the_same_bits_again", "keep nothing between folds"),
    bad(Unseeded, "test_the_same_updates_give_the_same_bits_again", "round_number"),
    bad(Halved, "test_a_shift_of_all_rows_shifts_the_answer_if_that_is_claimed", "claims is_translation"),
    bad(
        UnclaimedMean, "test_a_shift_of_all_rows_that_shifts_the_answer_is_claimed", "seems to be translation"
    ),
    bad(NotANumber, "test_it_gives_a_finite_model_of_the_right_shapes", "must give finite values"),
    bad(OneColumnTooMany, "test_it_gives_a_finite_model_of_the_right_shapes", r"combine must give \(5,\)"),
    bad(DecidesOnALambda, "test_other_processes_get_what_they_need", "'decision' of the work.* must pickle"),
    bad(DecidesBySomethingElse, "test_other_processes_get_what_they_need", "is in neither"),
    bad(StacksAllRows, "test_memory_does_not_grow_with_the_updates", "in memory for each update more"),
    bad(TakesTheMatrixUnannounced, "test_memory_does_not_grow_with_the_updates", "needs_matrix = True"),
    bad(AlwaysOneMore, "test_updates_that_agree_are_the_answer", "all updates agree on"),
    bad(
        DividesByExamples, "test_any_finite_values_and_examples_give_a_model_or_a_reason", "ZeroDivisionError"
    ),
    bad(FailsOnEnormousRows, "test_one_enormous_update_is_outvoted_or_refused", "OverflowError"),
    bad(
        DoublesTheLength,
        "test_longer_rows_give_a_longer_step_if_that_is_claimed",
        "scale",
        is_scale_equivariant=True,
    ),
    bad(NeedsFive, "test_it_knows_its_smallest_number_of_updates", "say so to people"),
    bad(NeedsHalfAnUpdate, "test_it_knows_its_smallest_number_of_updates", "integer of 1 or more"),
    bad(PayloadWithASlash, "test_its_payloads_states_and_metrics_have_legal_names", "control/variate"),
    bad(StateOfInfinity, "test_its_payloads_states_and_metrics_have_legal_names", "finite number, found inf"),
    bad(RefusesOrdinaryMetrics, "test_its_payloads_states_and_metrics_have_legal_names", "must be negative"),
    bad(TellsClientsAnArray, "test_what_it_tells_clients_is_json", "client_config must be JSON"),
    bad(CountsByHalves, "test_its_weights_of_integers_are_counts", "an int of 0 or more"),
    bad(WeighsBelowZero, "test_its_weights_of_rows_are_shares", "numbers of 0 or more"),
    bad(WeighsByPlaces, "test_its_weights_of_rows_follow_the_updates", "wherever it stands"),
    bad(WeighsTwice, "test_its_weights_of_rows_make_the_answer", "says that its answer is the sum"),
    bad(NeedsARowOfItsOwn, "test_it_goes_with_the_stages_and_optimisers_that_it_accepts", "not my row"),
    bad(NotFrozen, "test_it_is_a_frozen_dataclass_of_its_kind", "frozen=True"),
    bad(Optimiser, "test_it_is_a_frozen_dataclass_of_its_kind", "subclass of Aggregator", part=None),
    bad(LosesItself, "test_it_survives_pickling", "equal itself after pickling"),
    bad(PlainMean, "test_it_is_registered_and_comes_back_from_its_spec", "fma.aggregators"),
    bad(WithoutDescriptions, "test_it_is_described_for_people_and_programs", "'beta'.*needs a description"),
    bad(WithoutSource, "test_it_is_described_for_people_and_programs", "where it comes from"),
    bad(TakesAnything, "test_it_refuses_wrong_parameters", r"super\(\).__post_init__"),
]


@pytest.mark.parametrize(("part", "check", "message", "options"), BROKEN_RULES)
def test_broken_rule_is_caught(part: Any, check: str, message: str, options: Mapping[str, Any]) -> None:
    with pytest.raises(AssertionError, match=message):
        run(check, options if "part" in options else {"part": part(), **options})


def test_what_the_broken_rules_are_made_of_is_sound() -> None:
    for check in {param.values[1] for param in BROKEN_RULES} - {
        "test_it_is_registered_and_comes_back_from_its_spec"
    }:
        run(check, {"part": PlainMean()})


def run(check: str, members: Mapping[str, Any], contract: type = AggregatorContract) -> None:
    tested = type("Tested", (contract,), dict(members))()
    arguments = [0] if "shapes" in check else []
    getattr(tested, check)(*arguments)


@dataclass(frozen=True)
class MovesToTheMean(Optimiser):
    """Every column moves as all together do."""

    def step(self, delta: Float64, state: Mapping[str, Float64], num_steps: int) -> Float64:
        return np.full_like(delta, delta.mean())


@dataclass(frozen=True)
class HasMomentumOfItsOwn(Optimiser):
    def step(self, delta: Float64, state: Mapping[str, Float64], num_steps: int) -> Float64:
        return delta + next(CALLS)


@dataclass(frozen=True)
class Swaps(RowStage):
    """Each row becomes the next one, which it says mixes nothing."""

    mixes: ClassVar[bool] = False
    is_translation_equivariant: ClassVar[bool] = True

    def map_rows(self, rows: Rows) -> RowMap:
        return RowMap(np.roll(np.eye(rows.num_rows), 1, axis=1) * 2, rows.num_examples)


@dataclass(frozen=True)
class Drops(RowStage):
    """Half of the rows, without asking for twice as many; divided by what may be zero."""

    def map_rows(self, rows: Rows) -> RowMap:
        half = rows.num_rows // 2
        norms = rows.squared_norms()
        return RowMap(np.eye(rows.num_rows)[:half] / norms, rows.num_examples)


@dataclass(frozen=True)
class Forgets(Staleness):
    """Old updates count for nothing."""

    def discount(self, staleness: int) -> float:
        return 0.0 if staleness > 9 else 1.0


@dataclass(frozen=True)
class ExactlyTwo(Requirement):
    """Two, and not three."""

    def is_met(self, progress: RoundProgress) -> bool:
        return progress.num_updates == 2


@pytest.mark.parametrize(
    ("contract", "part", "check", "message", "options"),
    [
        (
            OptimiserContract,
            MovesToTheMean(),
            "test_columns_do_not_depend_on_each_other",
            "column by itself",
            {},
        ),
        (
            OptimiserContract,
            MovesToTheMean(),
            "test_executors_and_cuts_change_no_bit_of_model_or_state",
            "other bits under",
            {},
        ),
        (
            OptimiserContract,
            HasMomentumOfItsOwn(),
            "test_rounds_go_on_from_the_state_that_was_kept",
            "`states`",
            {},
        ),
        (
            OptimiserContract,
            HasMomentumOfItsOwn(),
            "test_a_step_of_nothing_from_a_fresh_state_moves_nothing",
            "must not move",
            {},
        ),
        (StageContract, Swaps(), "test_rows_have_one_owner_unless_it_says_that_it_mixes", "mixes = True", {}),
        (
            StageContract,
            Swaps(),
            "test_a_shift_of_all_rows_shifts_the_new_ones_if_that_is_claimed",
            "claims is_translation_equivariant",
            {},
        ),
        (
            StageContract,
            Drops(),
            "test_its_smallest_number_of_updates_gives_what_follows_enough",
            "makes only",
            {"wanted": 2},
        ),
        (
            StageContract,
            Drops(),
            "test_new_rows_are_finite_sums_of_the_old_and_count_examples",
            "num_examples",
            {},
        ),
        (
            StageContract,
            Drops(),
            "test_enormous_and_equal_rows_give_a_finite_matrix_or_a_reason",
            "finite matrix",
            {},
        ),
        (StalenessContract, Forgets(), "test_discounts_are_shares", "greater than 0", {}),
        (RequirementContract, ExactlyTwo(), "test_more_updates_never_hold_a_round_open", "no more when", {}),
        (RequirementContract, ExactlyTwo(), "test_it_can_be_met", "set `enough`", {}),
    ],
    ids=lambda value: value if str(value).startswith("test_") else "",
)
def test_broken_part_of_another_kind_is_caught(
    contract: type, part: Any, check: str, message: str, options: Mapping[str, Any]
) -> None:
    tested = type("Tested", (contract,), {"part": part})()
    with pytest.raises(AssertionError, match=message):
        getattr(tested, check)(**options)


def test_a_framework_behind_a_part_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_contract, "FRAMEWORKS", ("numpy", "django"))
    assert part_contract._imports.__wrapped__("fma_core.aggregation.staleness") == ("numpy",)
    with pytest.raises(AssertionError, match="importable on its own"):
        part_contract._imports.__wrapped__("no_such_module")


@pytest.mark.parametrize(
    ("departures", "message"),
    [
        ({"test_it_survives_pickling": "too large"}, "cannot depart from 'test_it_survives_pickling'"),
        ({"test_updates_that_agree_are_the_answer": " "}, "must say why"),
    ],
)
def test_departures_are_few_and_have_reasons(departures: Mapping[str, str], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        type("Tested", (AggregatorContract,), {"part": AvgValuesIfData(), "departures": departures})


def test_a_departure_that_does_not_depart_fails() -> None:
    check = "test_updates_that_agree_are_the_answer"
    tested = type(
        "Tested", (AggregatorContract,), {"part": AvgValuesIfData(), "departures": {check: "wrong"}}
    )
    [mark] = getattr(tested, check).pytestmark
    assert (mark.name, mark.kwargs) == (
        "xfail",
        {"reason": "wrong", "strict": True, "raises": AssertionError},
    )
    assert not hasattr(getattr(AggregatorContract, check), "pytestmark")
