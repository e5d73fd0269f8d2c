"""The use that a fold makes of each update: verdicts, weights, norms and distances, against values by hand."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from fma_core.aggregation.aggregators import (
    Aggregator,
    Bulyan,
    CenteredClipping,
    FedBuff,
    FLTrust,
    GeometricMedian,
    Krum,
    Mean,
    Median,
    MultiKrum,
    NormBoundedMean,
    QFedAvg,
    RowWeights,
    TrimmedMean,
    aggregators,
)
from fma_core.aggregation.optimisers import FedAdam
from fma_core.aggregation.stages import Bucketing, ClipNorm, NearestNeighbourMixing
from fma_core.aggregation.strategy import Strategy
from fma_core.engine import Serial, Threads, UpdateUse
from fma_core.in_memory import StoredRound, Update, fold_arrays

OUTLIER = [1.0, 2.0, 3.0, 6.0, 900.0]


def uses(strategy: Strategy | Aggregator[Any], updates: Sequence[Any], **options: Any) -> list[UpdateUse]:
    arrays = [each if isinstance(each, Update) else Update({"w": np.array([each, 0.0])}) for each in updates]
    start = {"w": np.array([0.0, 0.0])}
    with StoredRound(strategy, arrays, start=start) as stored:
        return list(stored.fold(**options).uses)


def verdicts(found: Sequence[UpdateUse]) -> list[str]:
    return [f"{use.verdict} {use.by}".strip() for use in found]


def weights(found: Sequence[UpdateUse]) -> list[float | None]:
    return [use.weight for use in found]


def test_a_mean_uses_every_update_by_its_examples() -> None:
    sent = [Update({"w": np.array([1.0, 0.0])}, num_examples=count) for count in (1, 3, 4)]

    found = uses(Mean(), sent)

    assert weights(found) == [0.125, 0.375, 0.5]
    assert verdicts(found) == ["used"] * 3


def test_multi_krum_rejects_the_outlier() -> None:
    found = uses(MultiKrum(f=1), OUTLIER)

    assert verdicts(found) == ["used"] * 4 + ["rejected multi_krum"]
    assert weights(found) == [0.25, 0.25, 0.25, 0.25, 0.0]
    assert [use.norm for use in found] == OUTLIER
    # The mean of 1, 2, 3 and 6 is 3.
    np.testing.assert_allclose([use.distance or 0 for use in found], [2, 1, 0, 3, 897], atol=1e-6)


def test_krum_uses_one_update() -> None:
    assert weights(uses(Krum(f=1), OUTLIER)) == [0, 1, 0, 0, 0]


def test_bulyan_rejects_what_krum_does_not_pick_and_knows_no_weights_of_the_others() -> None:
    found = uses(Bulyan(f=1), [1.0, 2.0, 2.1, 2.3, 2.6, 3.0, 900.0])

    assert found[-1].verdict == "rejected"
    assert sorted(str(weight) for weight in weights(found)) == ["0.0"] * 2 + ["None"] * 5


@pytest.mark.parametrize("rule", [Median(), TrimmedMean(beta=0.2)])
def test_coordinate_wise_rules_use_all_and_have_no_weights(rule: Aggregator[Any]) -> None:
    assert uses(rule, OUTLIER) == [UpdateUse()] * 5


def test_bounds_clip_the_long_updates() -> None:
    found = uses(NormBoundedMean(max_norm=4.0), [1.0, 2.0, 8.0])

    assert verdicts(found) == ["used", "used", "clipped norm_bounded_mean"]
    assert weights(found) == [0.4, 0.4, 0.2]  # factors 1, 1 and a half
    assert [use.norm for use in found] == [1.0, 2.0, 8.0]
    assert [use.distance for use in found] == [None] * 3  # nobody asked for inner products


def test_centered_clipping_clips() -> None:
    found = uses(CenteredClipping(tau=3.0, iterations=2), [1.0, 900.0])

    assert verdicts(found) == ["used", "clipped centered_clipping"]


def test_an_update_that_is_no_number_of_float64_long_is_rejected() -> None:
    found = uses(GeometricMedian(), [1.0, 2.0, 1e200])

    assert verdicts(found) == ["used", "used", "rejected geometric_median"]
    assert (found[2].norm, found[2].distance) == (None, None)


def test_fltrust_uses_its_root_as_the_reference() -> None:
    sent = [
        Update({"w": np.array(row)}, client=client)
        for client, row in (("root", [1.0, 0.0]), ("a", [2.0, 0.0]), ("b", [-1.0, 0.0]))
    ]

    found = uses(FLTrust(root_client="root"), sent)

    assert verdicts(found) == ["used", "used", "rejected fltrust"]
    assert weights(found) == [0.0, 1.0, 0.0]


def test_qfedavg_rejects_nobody_who_has_nothing_left_to_learn() -> None:
    sent = [Update({"w": np.array([1.0, 0.0])}, metrics={"base_loss": loss}) for loss in (0.0, 4.0)]

    found = uses(QFedAvg(q=1.0, client_learning_rate=1.0), sent)

    assert (verdicts(found), weights(found)) == (["used", "used"], [0.0, 1.0])


def test_a_discount_is_a_smaller_share() -> None:
    sent = [Update({"w": np.array([4.0, 0.0])}, staleness=age) for age in (0, 3)]

    assert weights(uses(FedBuff(), sent)) == pytest.approx([2 / 3, 1 / 3])


def test_a_stage_clips_and_rejects() -> None:
    strategy = Strategy(Mean(), stages=(ClipNorm(max_norm=4.0),))

    found = uses(strategy, [1.0, 8.0, 1e200])

    assert verdicts(found) == ["used", "clipped clip_norm", "rejected clip_norm"]
    assert weights(found) == pytest.approx([2 / 3, 1 / 3, 0])
    assert [use.norm for use in found] == [1.0, 8.0, None]


def test_what_is_clipped_and_then_rejected_is_rejected() -> None:
    found = uses(Strategy(Krum(f=1), stages=(ClipNorm(max_norm=5.0),)), OUTLIER)

    assert verdicts(found)[-1] == "rejected krum"


def test_the_updates_behind_a_mixed_row_share_its_weight() -> None:
    strategy = Strategy(MultiKrum(f=1, m=2), stages=(NearestNeighbourMixing(f=1),))

    found = uses(strategy, OUTLIER)

    assert sum(use.weight or 0 for use in found) == pytest.approx(1)
    assert found[-1].verdict == "rejected"


def test_buckets_before_a_median_have_no_weights() -> None:
    found = uses(Strategy(Median(), stages=(Bucketing(size=2),)), OUTLIER)

    assert found == [UpdateUse()] * 5


def test_rows_that_are_weights_have_no_norm() -> None:
    with StoredRound(MultiKrum(f=1), [{"w": np.array([value])} for value in OUTLIER]) as stored:
        found = stored.fold().uses

    assert [use.norm for use in found] == [None] * 5
    np.testing.assert_allclose([use.distance or 0 for use in found], [2, 1, 0, 3, 897], atol=1e-6)


@dataclass(frozen=True)
class OfToday(Aggregator[None]):
    """A rule that knows nothing of weights, as they were written before."""

    def combine(self, block: Any, decision: None) -> Any:
        return block.weighted_sum(np.ones(block.num_rows)) / block.num_rows


@dataclass(frozen=True)
class OwnDecision(Mean):
    """A rule that inherits the words of another one and decides something else."""

    def measure(self, rows: Any) -> Any:
        return np.ones(rows.num_rows)

    def combine(self, block: Any, decision: Any) -> Any:
        return block.weighted_sum(decision) / block.num_rows


@dataclass(frozen=True)
class Negative(OfToday):
    def row_weights(self, decision: None, num_rows: int) -> RowWeights:
        return RowWeights(np.linspace(1, -1, num_rows))


@dataclass(frozen=True)
class TooFew(OfToday):
    def row_weights(self, decision: None, num_rows: int) -> RowWeights:
        return RowWeights(np.ones(num_rows - 1))


@pytest.mark.parametrize("rule", [OfToday(), OwnDecision()])
def test_a_rule_that_does_not_say_uses_all(rule: Aggregator[Any]) -> None:
    with aggregators.register_temporarily("own", type(rule)):
        assert uses(rule, OUTLIER) == [UpdateUse()] * 5
        assert fold_arrays(rule, [{"w": np.array([value])} for value in (1.0, 3.0)])["w"] == [2.0]


@pytest.mark.parametrize("rule", [Negative(), TooFew()])
def test_weights_that_are_none_are_refused(rule: Aggregator[Any]) -> None:
    with (
        aggregators.register_temporarily("own", type(rule)),
        pytest.raises(ValueError, match="row_weights must give"),
    ):
        uses(rule, OUTLIER)


def test_the_optimiser_changes_no_weight() -> None:
    assert weights(uses(Strategy(Mean(), optimiser=FedAdam()), [1.0, 3.0])) == [0.5, 0.5]


def test_threads_and_widths_change_no_bit() -> None:
    rng = np.random.default_rng(3)
    sent = [
        Update({"w": rng.normal(size=5000).astype(np.float32)}, num_examples=7 + index) for index in range(9)
    ]
    start = {"w": np.zeros(5000, np.float32)}
    strategy = Strategy(MultiKrum(f=2), stages=(ClipNorm(max_norm=70.0),))
    with StoredRound(strategy, sent, start=start) as stored:
        found = [
            stored.fold(executor=executor, block_columns=columns).uses
            for executor in (Serial(), Threads(1), Threads(4))
            for columns in (None, 7)
        ]

    assert {len({*found}), len(found[0])} == {1, 9}
