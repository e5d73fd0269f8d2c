"""The policy of each array: laws that hold under every rule and optimiser, and an independent oracle of each policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fma_core import simulate
from fma_core.aggregation.aggregators import (
    Aggregator,
    Bulyan,
    FedAsync,
    FedBuff,
    FedExLora,
    FedNova,
    FedProx,
    FLTrust,
    GeometricMedian,
    Krum,
    Mean,
    Median,
    MultiKrum,
    QFedAvg,
    RowWeights,
    Scaffold,
    aggregators,
)
from fma_core.aggregation.optimisers import FedAdam, FedAvgM, optimisers
from fma_core.aggregation.stages import ClipNorm, Exclude
from fma_core.aggregation.staleness import Constant, Hinge, Polynomial
from fma_core.aggregation.strategy import Strategy
from fma_core.arrays.codecs.safetensors import decode
from fma_core.arrays.dtypes import NUMPY_DTYPES
from fma_core.arrays.policies import AVERAGED_BY_DEFAULT, ArrayPolicies
from fma_core.arrays.spec import Spec
from fma_core.engine import Serial
from fma_core.engine.executors import Threads
from fma_core.engine.value_weights import ValueWeights
from fma_core.errors import InvalidParameter, InvalidStrategy, NegativeVariance, NoUpdates
from fma_core.in_memory import ArrayRounds, StoredRound, Update, fold_arrays
from fma_core.simulation import SimulatedClient, Trained
from fma_core.testing.drawn_updates import draw_updates
from tests.core.test_contract_suite import AGGREGATORS

WEIGHTS: Mapping[str, np.ndarray[Any, Any]] = {
    "a": np.zeros(70, np.float32),
    "z": np.zeros((3, 5), np.float64),
}
STATISTICS: Mapping[str, np.ndarray[Any, Any]] = {
    "bn.num_batches_tracked": np.zeros((), np.int64),
    "bn.running_mean": np.zeros(40, np.float32),
    "bn.running_var": np.ones(40, np.float32),
    "k/moving_variance": np.ones(3, np.float16),
}
START = {**WEIGHTS, **STATISTICS}
COUNT = 7
RULES = sorted(set(AGGREGATORS) - {"fedex_lora"})  # its model has arrays of its own


def rule(name: str) -> Any:
    return aggregators.build(name, AGGREGATORS[name].params)


def updates_of(strategy: Strategy) -> list[Update]:
    updates = draw_updates(strategy, START, COUNT, metric=lambda name, index: 1.0 + index)
    return [
        replace(
            update,
            staleness=0,
            arrays={
                name: np.abs(array) if name.endswith(("var", "variance")) else array
                for name, array in update.arrays.items()
            },
        )
        for update in updates
    ]


def expected(strategy: Strategy, updates: list[Update], name: str) -> np.ndarray[Any, Any]:
    """The mean or the median by numpy, from the values that were sent."""
    sent = np.array([update.arrays[name] for update in updates], np.float64)
    if strategy.aggregator.integers == "median":
        value = np.median(sent, axis=0)
    else:
        weights = strategy.aggregator.integer_weights([update.num_examples for update in updates])
        value = np.average(sent, axis=0, weights=weights)
    kind = STATISTICS[name].dtype
    return (np.rint(value) if kind.kind == "i" else value).astype(kind)


def strategies() -> Mapping[str, Strategy]:
    alone = {name: Strategy(rule(name)) for name in RULES}
    stepped = {
        f"{name} and {optimiser}": Strategy(rule(name), optimiser=optimisers.build(optimiser))
        for name in ("mean", "fednova", "median", "multi_krum", "scaffold", "qfedavg")
        for optimiser in optimisers.names()
        if rule(name).takes_optimiser
    }
    clipped = {"clipped": Strategy(Mean(), stages=(ClipNorm(max_norm=0.01),), optimiser=FedAdam())}
    return {**alone, **stepped, **clipped}


STRATEGIES = strategies()


@pytest.mark.parametrize("case", STRATEGIES)
def test_statistics_are_the_mean_of_what_was_sent_and_do_not_touch_the_weights(case: str) -> None:
    strategy = STRATEGIES[case]
    updates = updates_of(strategy)
    found = fold_arrays(strategy, updates, START)

    for name in STATISTICS:
        np.testing.assert_allclose(found[name], expected(strategy, updates, name), rtol=1e-6, atol=1e-9)
    bare = [
        replace(
            update, arrays={name: array for name, array in update.arrays.items() if name not in STATISTICS}
        )
        for update in updates
    ]
    without = fold_arrays(strategy, bare, WEIGHTS)
    assert {name: found[name].tobytes() for name in WEIGHTS} == {
        name: without[name].tobytes() for name in WEIGHTS
    }


@pytest.mark.parametrize("optimiser", optimisers.names())
def test_a_variance_under_an_optimiser_follows_the_mean(optimiser: str) -> None:
    strategy = Strategy(Mean(), optimiser=optimisers.build(optimiser))
    rounds = ArrayRounds(strategy, {"bn.running_var": np.ones(1), "w": np.zeros(1)})
    for number in range(1, 13):
        measured = rounds.model["bn.running_var"] * 0.9 + 0.1 * 0.05
        rounds.play([{"bn.running_var": measured, "w": np.ones(1)}] * 3)
        assert rounds.model["bn.running_var"][0] == pytest.approx(0.05 + 0.95 * 0.9**number)


@pytest.mark.parametrize("case", ["mean and fedadam", "median", "fednova"])
def test_the_number_of_threads_and_the_width_of_blocks_change_no_bit(case: str) -> None:
    policies = ArrayPolicies.of({"z": "newest"})
    strategy = replace(STRATEGIES[case], policies=policies)
    with StoredRound(strategy, updates_of(strategy), start=START) as stored:
        folded = {
            stored.fold(executor=Threads(threads), block_columns=width).model
            for threads, width in ((1, None), (3, 7), (2, 64))
        }
    assert len(folded) == 1


def test_a_policy_says_how_each_array_comes_to_its_next_value() -> None:
    names = ("averaged", "kept", "newest", "stepped")
    strategy = Strategy(
        Mean(),
        optimiser=FedAvgM(learning_rate=2.0),
        policies=ArrayPolicies.of({name: name for name in names}),
    )
    start = {name: np.array([1.0]) for name in names}
    sent = [
        Update({name: np.array([value]) for name in names if name != "kept"}, num_examples=n)
        for value, n in ((2.0, 3), (6.0, 1))
    ]
    found = fold_arrays(strategy, sent, start)
    assert {name: array.tolist() for name, array in found.items()} == {
        "averaged": [3.0],
        "kept": [1.0],
        "newest": [6.0],
        "stepped": [5.0],  # 1 + 2 · (3 − 1)
    }


@pytest.mark.parametrize("policy", ["averaged", "newest"])
def test_differences_are_added_to_what_each_client_trained_from(policy: str) -> None:
    strategy = Strategy(FedNova(), update_kind="delta", policies=ArrayPolicies.of({"v": policy}))
    start = {"v": np.array([10.0]), "w": np.array([0.0])}
    old = {"v": np.array([4.0]), "w": np.array([0.0])}
    sent = [
        Update({"v": np.array([1.0]), "w": np.array([1.0])}, metrics={"num_steps": 1}),
        Update({"v": np.array([3.0]), "w": np.array([1.0])}, metrics={"num_steps": 9}, base=old),
    ]
    assert fold_arrays(strategy, sent, start)["v"].tolist() == {"averaged": [9.0], "newest": [7.0]}[policy]


def test_old_statistics_count_less_where_the_model_says_so() -> None:
    strategy = Strategy(Mean(), staleness=Polynomial(a=1.0))
    sent = [
        Update({"x.running_mean": np.array([4.0]), "w": np.zeros(1)}),
        Update({"x.running_mean": np.array([0.0]), "w": np.zeros(1)}, staleness=2),  # counts for a third
    ]
    start = {"x.running_mean": np.zeros(1), "w": np.zeros(1)}
    assert fold_arrays(strategy, sent, start)["x.running_mean"].tolist() == [3.0]


DISCOUNTED = {
    "mean": (Strategy(Mean(), staleness=Polynomial()), Polynomial(), True),
    "mean, constant": (Strategy(Mean(), staleness=Constant()), Constant(), True),
    "fedprox": (Strategy(FedProx(), staleness=Hinge(a=3.0, b=1)), Hinge(a=3.0, b=1), True),
    "fedbuff": (Strategy(FedBuff()), Polynomial(0.5), False),
    "fedbuff, sum_s": (Strategy(FedBuff(normalise="sum_s")), Polynomial(0.5), False),
    "fedbuff of a model with a discount": (
        Strategy(FedBuff(), staleness=Polynomial(64.0)),
        Polynomial(64.0),
        False,
    ),
    "fedasync": (Strategy(FedAsync(a=2.0)), Polynomial(2.0), False),
    "fedasync of a model with a discount": (
        Strategy(FedAsync(a=2.0), staleness=Hinge(a=3.0, b=0)),
        Hinge(a=3.0, b=0),
        False,
    ),
}


@pytest.mark.parametrize("name", DISCOUNTED)
@settings(max_examples=15, deadline=None)
@given(
    sent=st.lists(
        st.tuples(
            st.integers(-(2**63), 2**63 - 1), st.integers(-3, 3), st.integers(1, 2**40), st.integers(0, 5)
        ),
        min_size=1,
        max_size=7,
    )
)
def test_old_values_count_less_also_as_integers_and_exactly(
    name: str, sent: list[tuple[int, int, int, int]]
) -> None:
    strategy, discount, by_examples = DISCOUNTED[name]
    updates = [
        Update(
            {"large": np.array(large), "small": np.array(small, np.int8), "mean": np.array([small / 7])}
            | {"w": np.zeros(1)},
            num_examples=count,
            staleness=age,
        )
        for large, small, count, age in sent
    ]
    strategy = replace(
        strategy, policies=ArrayPolicies.of(dict.fromkeys(("large", "small", "mean"), "averaged"))
    )
    weights = [Fraction(discount.discount(age)) * (count if by_examples else 1) for *_, count, age in sent]

    def mean_of(values: Iterable[Any]) -> Fraction:
        pairs = zip(weights, values, strict=True)
        return sum((weight * Fraction(value) for weight, value in pairs), Fraction(0)) / sum(weights)

    found = fold_arrays(strategy, updates)
    # Fraction rounds half to even, too.
    assert int(found["large"]) == round(mean_of(large for large, *_ in sent))
    assert int(found["small"]) == round(mean_of(small for _, small, *_ in sent))
    assert found["mean"][0] == pytest.approx(float(mean_of(small / 7 for _, small, *_ in sent)), abs=1e-15)


@pytest.mark.parametrize("ages", [(3, 3, 7), (1, 5, 2), (9, 9, 9)])
def test_a_fresh_update_that_was_rejected_does_not_move_a_bit_of_the_weights(ages: tuple[int, ...]) -> None:
    discounts = [Polynomial().discount(age) for age in ages]
    with_it = ValueWeights.of([3, 0, 5, 7], np.array([discounts[0], 1.0, *discounts[1:]]))
    without = ValueWeights.of([3, 5, 7], np.array(discounts))
    assert np.delete(with_it.floats, 1).tolist() == without.floats.tolist()
    assert with_it.exact == (without.exact[0], 0, *without.exact[1:])


def test_steps_and_losses_do_not_weigh_values() -> None:
    start = {"n": np.array(0), "v": np.zeros(1), "w": np.zeros(1)}
    policies = ArrayPolicies.of({"v": "averaged"})
    for rule, metric in ((FedNova(), "num_steps"), (QFedAvg(), "base_loss")):
        sent = [
            Update({"n": np.array(n), "v": np.full(1, float(n)), "w": np.ones(1)}, metrics={metric: n})
            for n in (1, 9)
        ]
        found = fold_arrays(Strategy(rule, policies=policies), sent, start)
        assert (int(found["n"]), found["v"].tolist()) == (5, [5.0])


def test_fedasync_does_not_mix_statistics_with_the_model() -> None:
    start = {"bn.running_var": np.array([8.0]), "w": np.array([8.0])}
    found = fold_arrays(
        FedAsync(alpha=0.25), [{"bn.running_var": np.array([4.0]), "w": np.array([4.0])}], start
    )
    assert (found["bn.running_var"].tolist(), found["w"].tolist()) == ([4.0], [7.0])


def test_no_control_variate_and_no_state_belongs_to_statistics() -> None:
    spec = Spec.of({"bn.running_mean": np.zeros(2), "w": np.zeros(3)})
    strategy = Strategy(Scaffold(), optimiser=FedAdam())
    assert strategy.update_spec(spec).names == ("bn.running_mean", "control/w", "w")
    state = strategy.state_spec(spec)
    assert state is not None
    assert not any("running_mean" in name for name in state.names)


def test_an_attacker_does_not_move_statistics_under_a_robust_rule() -> None:
    start = {"bn.running_var": np.ones(2), "w": np.zeros(2)}
    sent = [{"bn.running_var": np.full(2, 1.0 + i / 10), "w": np.full(2, i / 10)} for i in range(6)]
    sent.append({"bn.running_var": np.full(2, 1e9), "w": np.zeros(2)})
    for robust in (Krum(f=1), Median()):
        assert fold_arrays(robust, sent, start)["bn.running_var"].max() < 2


def test_a_negative_variance_is_no_result() -> None:
    sent = [{"bn.running_var": np.array([1.0, -3.0]), "w": np.zeros(1)}]
    with pytest.raises(NegativeVariance, match=r"'bn.running_var' .* variances of 0 or more; found -3.0"):
        fold_arrays(Mean(), sent)
    chosen = Strategy(Mean(), policies=ArrayPolicies.of({"*_var": "averaged"}))
    with pytest.raises(NegativeVariance):
        fold_arrays(chosen, [{"ema_var": np.array([-1.0]), "w": np.zeros(1)}])


@pytest.mark.parametrize("name", ["ema_var", "decoder.log_var", "variable", "bn.running_mean"])
def test_what_is_no_variance_may_be_negative(name: str) -> None:
    assert fold_arrays(Mean(), [{name: np.array([-1.0])}])[name].tolist() == [-1.0]


def test_rounds_of_before_policies_are_computed_as_they_were() -> None:
    stored = Strategy(Mean(), optimiser=FedAvgM(learning_rate=3.0)).to_json()
    del stored["array_policies"]
    before = Strategy.from_json(stored)
    start = {"bn.running_var": np.ones(1)}
    assert fold_arrays(before, [{"bn.running_var": np.zeros(1)}], start)["bn.running_var"].tolist() == [-2.0]
    assert Strategy.from_json(before.to_json()) == before


@pytest.mark.parametrize(
    "name",
    [
        "running_mean",
        "layers.0.bn1.running_var",
        "bn.num_batches_tracked",
        "batch_normalization/moving_mean:0",
        "model/batch_normalization_1/moving_variance",
        "batch_stats/BatchNorm_0/mean",
        "['batch_stats']['BatchNorm_0']['var']",
        "batch_stats.BatchNorm_0.var",
    ],
)
def test_statistics_of_normalisation_layers_are_averaged_by_themselves(name: str) -> None:
    assert ArrayPolicies().policy_of(name) == "averaged"
    assert ArrayPolicies.of({name: "stepped"}).policy_of(name) == "stepped"


@pytest.mark.parametrize("name", ["bn.weight", "running_meaning", "head", "params/BatchNorm_0/scale"])
def test_what_is_trained_is_stepped(name: str) -> None:
    assert ArrayPolicies().policy_of(name) == "stepped"


def test_the_most_precise_pattern_wins() -> None:
    policies = ArrayPolicies.of(
        {"*": "averaged", "head.*": "kept", "head.b*": "newest", "head.bias": "stepped", "x[0]": "kept"}
    )
    found = {name: policies.policy_of(name) for name in ("w", "head.w", "head.b2", "head.bias", "x[0]")}
    assert found == {
        "w": "averaged",
        "head.w": "kept",
        "head.b2": "newest",
        "head.bias": "stepped",
        "x[0]": "kept",
    }


def test_patterns_that_disagree_where_another_decides_are_no_contradiction() -> None:
    spec = Spec.of({"a.w": np.zeros(1), "a.b": np.zeros(1)})
    ArrayPolicies.of({"a.w": "kept", "a.*": "kept", "*.w": "averaged"}).check(spec)
    ArrayPolicies.of({"a.w*": "kept", "a.*": "kept", "*.w": "averaged"}).check(spec)


def test_what_a_stage_leaves_out_is_kept() -> None:
    strategy = Strategy(Mean(), stages=(Exclude(("bn.*",)),))
    assert strategy.policy_of("bn.running_var") == "kept"
    assert strategy.policy_of("conv.running_var") == "averaged"
    same = Strategy(Mean(), policies=ArrayPolicies.of({"bn.*": "kept"}))
    spec = Spec.of({"bn.weight": np.ones(2), "w": np.ones(3)})
    assert same.roles(spec) == strategy.roles(spec)
    assert same.update_spec(spec) == strategy.update_spec(spec)
    assert same.needs_start
    assert strategy.needs_start


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "must be an object of policies by pattern"),
        ({"": "kept"}, "patterns must have 1 to 1024 characters"),
        ({"w": "avaraged"}, "found 'avaraged'; did you mean 'averaged'"),
        ({"w": None}, "must be one of stepped, averaged, newest, collected, kept; found None"),
        ({f"*{number}": "kept" for number in range(65)}, "may have 64 patterns"),
    ],
)
def test_what_no_policies_are(value: Any, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message) as raised:
        ArrayPolicies.of(value)
    assert raised.value.facts["field"] == "array_policies"


SPEC = Spec.of({"head.weight": np.ones(2), "ids": np.ones(2, np.int32), "w": np.ones(2)})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"haed.weight": "kept"}, "matches no array of the model's spec; did you mean 'head.weight'"),
        ({"q*": "kept"}, "matches no array of the model's spec, which has 'head.weight', 'ids', 'w'"),
        ({"ids": "stepped"}, "'ids' holds int32; only floating-point arrays can be stepped"),
        ({"h*w*": "kept", "*ght": "newest"}, None),
        ({"h*w*": "kept", "*ht": "newest"}, r"'head.weight' matches .* give its whole name its policy"),
        ({}, "'ids' holds int32, and the model does not say what they mean"),
        ({"ids": "averaged"}, None),
        ({"ids": "newest"}, None),
    ],
)
def test_policies_must_fit_the_arrays(value: Any, message: str | None) -> None:
    strategy = Strategy(
        Mean(), policies=ArrayPolicies.of(value if not value or "ids" in value else {**value, "ids": "kept"})
    )
    if message is None:
        strategy.check_spec(SPEC)
    else:
        with pytest.raises(InvalidParameter, match=message):
            strategy.check_spec(SPEC)


@pytest.mark.parametrize(
    "array",
    [np.zeros((), np.int64), np.zeros(1, np.int32), np.zeros(9, np.bool_), np.zeros(9, np.float16)],
)
def test_a_single_number_booleans_and_floats_need_no_word(array: Any) -> None:
    Strategy(Mean()).check_spec(Spec.of({"n": array}))


def test_something_must_be_sent() -> None:
    with pytest.raises(InvalidStrategy, match="no array of the model's spec would be sent"):
        Strategy(Mean(), policies=ArrayPolicies.of({"*": "kept"})).check_spec(SPEC)


def test_opaque_bytes_are_never_averaged() -> None:
    start = {"trees": np.frombuffer(b"start!", np.uint8), "w": np.zeros(1)}
    sent = [{"trees": np.frombuffer(each, np.uint8), "w": np.zeros(1)} for each in (b"first.", b"second")]
    for policy, wanted in (("newest", b"second"), ("kept", b"start!")):
        strategy = Strategy(Mean(), policies=ArrayPolicies.of({"trees": policy}))
        given = [{name: each[name] for name in strategy.update_spec(Spec.of(start)).names} for each in sent]
        assert fold_arrays(strategy, given, start)["trees"].tobytes() == wanted


@pytest.mark.parametrize("array", [np.zeros(3, np.uint8), np.zeros((), np.int8), np.zeros((2, 2), np.int64)])
def test_integers_of_no_declared_meaning_are_refused_wherever_they_come_in(array: Any) -> None:
    sent = {"codes": array, "w": np.zeros(1)}
    message = '\'codes\' holds .* choose "averaged" .*"newest", "collected" or "kept"'
    with pytest.raises(InvalidParameter, match=message):
        fold_arrays(Mean(), [sent])

    clients = [SimulatedClient(name, lambda *_: Trained(sent)) for name in "ab"]
    with pytest.raises(InvalidParameter, match=message):
        simulate({"aggregator": "mean"}, clients, rounds=1, initial=sent)
    found = simulate({"aggregator": "mean"}, clients, rounds=1)
    assert found.end_reason == "stalled"
    assert [why.code for why in found.rounds[0].rejected.values()] == ["invalid_parameter"] * 2


def test_an_update_without_a_weight_is_not_the_newest() -> None:
    strategy = Strategy(Mean(), policies=ArrayPolicies.of({"w": "newest"}))
    sent = [Update({"w": np.array([1.0])}, num_examples=2), Update({"w": np.array([5.0])}, num_examples=0)]
    assert fold_arrays(strategy, sent)["w"].tolist() == [1.0]


VALUES = ArrayPolicies.of({"code": "newest", "run*": "averaged", "seen": "averaged", "votes": "averaged"})


def valued(step: float, value: int, *, examples: int = 1, client: str = "") -> Update:
    """An update of one step, and of values whose policies are in VALUES."""
    arrays = {
        "code": np.full(3, value, np.uint8),
        "running": np.full(3, float(value), np.float32),
        "seen": np.array(value),
        "votes": np.array([value > 99]),
        "w": np.full(2, step),
    }
    return Update(arrays, num_examples=examples, client=client)


def unchanged() -> dict[str, np.ndarray[Any, Any]]:
    return {**valued(0.0, 7).arrays}


@pytest.mark.parametrize(
    "rule", [MultiKrum(f=1), Krum(f=1), Bulyan(f=1), GeometricMedian(), FLTrust(root_client="root")]
)
def test_the_newest_is_the_newest_that_the_rule_used(rule: Aggregator[Any]) -> None:
    far = 1e200 if isinstance(rule, GeometricMedian) else -900.0
    sent = [valued(1 + 0.01 * number, number, client="root" if not number else "") for number in range(7)]
    strategy = Strategy(rule, policies=VALUES)
    with StoredRound(strategy, [*sent, valued(far, 200)], start=unchanged()) as stored:
        folded = stored.fold()
    used = [number for number, use in enumerate(folded.uses) if use.counts]

    assert len(used) < 8
    assert decode(folded.model)["code"].tolist() == [used[-1]] * 3
    assert used[-1] != 7


@pytest.mark.parametrize("rule", [Mean(), FedNova(), FedBuff(), QFedAvg(q=1.0)])
def test_a_mean_of_values_leaves_out_what_a_stage_rejected(rule: Aggregator[Any]) -> None:
    def given(update: Update) -> Update:
        return replace(update, metrics=dict.fromkeys(rule.required_metrics, 1.0))

    strategy = Strategy(rule, stages=(ClipNorm(max_norm=1.0),), policies=VALUES)
    honest = [given(valued(0.1, 3, examples=2)), given(valued(0.2, 6))]
    # Its square is infinite, and clipping leaves nothing of it.
    beyond = given(valued(1e200, 240, examples=5))
    expected = fold_arrays(strategy, honest, unchanged(), num_clients=3)

    for sent in ([beyond, *honest], [honest[0], beyond, honest[1]], [*honest, beyond]):
        found = fold_arrays(strategy, sent, unchanged(), num_clients=3)
        for name in ("code", "running", "seen", "votes"):
            np.testing.assert_array_equal(found[name], expected[name])


def test_values_stay_when_every_update_is_rejected() -> None:
    strategy = Strategy(Mean(), stages=(ClipNorm(max_norm=1.0),), policies=VALUES)

    found = fold_arrays(strategy, [valued(1e200, 3), valued(1e201, 9)], unchanged())

    assert {name: array.tolist() for name, array in found.items()} == {
        name: array.tolist() for name, array in unchanged().items()
    }


def test_without_a_model_to_keep_a_round_of_rejected_updates_fails() -> None:
    @dataclass(frozen=True)
    class Nobody(Mean):
        def measure(self, rows: Any) -> Any:
            return np.zeros(rows.num_rows)

        def combine(self, block: Any, decision: Any) -> Any:
            return np.zeros(block.num_columns)

        def row_weights(self, decision: Any, num_rows: int) -> RowWeights:
            return RowWeights(decision)

    with (
        aggregators.register_temporarily("nobody", Nobody),
        pytest.raises(NoUpdates, match="every update was"),
    ):
        fold_arrays(Strategy(Nobody(), policies=VALUES), [valued(1.0, 3)])


@pytest.mark.parametrize("rule", [Krum(f=2), MultiKrum(f=2, m=2), MultiKrum(f=2, m=4), Bulyan(f=2)])
def test_attackers_whose_steps_look_harmless_do_not_decide_robust_values(rule: Aggregator[Any]) -> None:
    """Why their median is of all: Krum takes those that lie closest together, and attackers can agree."""
    honest = [valued(1 + 0.1 * number, 10 + number) for number in range(max(rule.min_updates, 7) - 2)]
    attackers = [valued(1.25, 250)] * 2
    strategy = Strategy(rule, policies=VALUES)
    for sent in (attackers + honest, honest + attackers):
        with StoredRound(strategy, sent, start=unchanged()) as stored:
            folded = stored.fold()
        used = [update for update, use in zip(sent, folded.uses, strict=True) if use.counts]
        found = decode(folded.model)

        if not isinstance(rule, Bulyan):
            assert sum(update in attackers for update in used) * 2 >= len(used)
        assert 10 <= found["running"].min() <= found["running"].max() <= 10 + len(honest)
        assert 10 <= found["seen"] <= 10 + len(honest)
        assert found["votes"].tolist() == [False]


@pytest.mark.parametrize("executor", [Serial(), Threads(1), Threads(2), Threads(5)])
def test_values_of_used_updates_have_the_same_bits_on_any_number_of_threads(executor: Any) -> None:
    rng = np.random.default_rng(3)
    start = {"code": np.zeros(70_001, np.uint8), "run": np.zeros(90_001), "w": np.zeros(50_001, np.float32)}

    def drawn(scale: float) -> dict[str, np.ndarray[Any, Any]]:
        return {
            "code": rng.integers(0, 255, 70_001, np.uint8),
            "run": rng.normal(size=90_001),
            "w": (scale * rng.normal(size=50_001)).astype(np.float32),
        }

    sent = [drawn(1.0) for _ in range(5)] + [drawn(1e6)]
    strategy = Strategy(MultiKrum(f=1), policies=ArrayPolicies.of({"code": "newest", "run": "averaged"}))
    with StoredRound(strategy, sent, start=start) as stored:
        expected = stored.fold(executor=Serial())
        found = stored.fold(executor=executor, block_columns=4096)

    assert found == expected
    assert decode(found.model)["code"].tobytes() == sent[4]["code"].tobytes()


FOREST = ArrayPolicies.of({"trees": "collected", "log": "collected"})


def planted(*seeds: int) -> list[dict[str, np.ndarray[Any, Any]]]:
    return [
        {"log": np.array(seed), "trees": np.full((2, 3), seed, np.uint8), "w": np.full(2, float(seed))}
        for seed in seeds
    ]


def bare(num_trees: int, num_logs: int) -> dict[str, np.ndarray[Any, Any]]:
    return {
        "log": np.zeros(num_logs, np.int64),
        "trees": np.zeros((num_trees, 2, 3), np.uint8),
        "w": np.zeros(2),
    }


def test_collected_arrays_hold_what_all_rounds_sent_the_newest_first() -> None:
    rounds = ArrayRounds(Strategy(Mean(), policies=FOREST), bare(6, 4))

    rounds.play(planted(1, 2))
    assert rounds.model is not None
    assert rounds.model["trees"][:, 0, 0].tolist() == [2, 1, 0, 0, 0, 0]
    assert rounds.model["log"].tolist() == [2, 1, 0, 0]
    rounds.play(planted(3, 4, 5))

    assert rounds.model["trees"].shape == (6, 2, 3)
    assert rounds.model["trees"][:, 0, 0].tolist() == [5, 4, 3, 2, 1, 0]
    # The oldest give way.
    assert rounds.model["log"].tolist() == [5, 4, 3, 2]
    rounds.play(planted(*range(10, 19)))
    assert rounds.model["trees"][:, 1, 2].tolist() == [18, 17, 16, 15, 14, 13]


@pytest.mark.parametrize("dtype", ["uint8", "bool", "int64", "float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("update_kind", ["weights", "delta"])
@pytest.mark.parametrize("optimiser", [None, FedAdam()])
def test_collected_values_are_bit_for_bit_what_was_sent(dtype: str, update_kind: Any, optimiser: Any) -> None:
    numpy_dtype = NUMPY_DTYPES[dtype]
    rng = np.random.default_rng(1)
    sent = [{"c": rng.integers(0, 2, (7, 2)).astype(numpy_dtype), "w": rng.normal(size=3)} for _ in range(5)]
    start = {"c": np.ones((8, 7, 2), numpy_dtype), "w": np.zeros(3)}
    strategy = Strategy(
        Mean(), optimiser=optimiser, update_kind=update_kind, policies=ArrayPolicies.of({"c": "collected"})
    )

    found = fold_arrays(strategy, sent, start)["c"]

    assert found.dtype == numpy_dtype
    expected = [*(each["c"] for each in reversed(sent)), *start["c"][:3]]
    assert found.tobytes() == np.stack(expected).tobytes()


def test_what_is_rejected_is_not_collected() -> None:
    strategy = Strategy(MultiKrum(f=1), policies=FOREST)
    sent = planted(1, 2, 3, 4, 5)
    sent[3]["w"] = np.full(2, 1e6)

    assert fold_arrays(strategy, sent, bare(6, 6))["log"].tolist() == [5, 3, 2, 1, 0, 0]


@pytest.mark.parametrize("executor", [Serial(), Threads(1), Threads(3)])
def test_large_collections_have_the_same_bits_on_any_number_of_threads(executor: Any) -> None:
    rng = np.random.default_rng(5)
    sent = [{"t": rng.integers(0, 255, 50_021, np.uint8), "w": rng.normal(size=9)} for _ in range(4)]
    start = {"t": rng.integers(0, 255, (23, 50_021), np.uint8), "w": np.zeros(9)}
    strategy = Strategy(Mean(), policies=ArrayPolicies.of({"t": "collected"}))
    with StoredRound(strategy, sent, start=start) as stored:
        expected = stored.fold(executor=Serial())
        found = stored.fold(executor=executor, block_columns=1000)

    assert found == expected
    trees = [*(each["t"] for each in reversed(sent)), *start["t"][:19]]
    assert decode(found.model)["t"].tobytes() == np.stack(trees).tobytes()


def test_a_collected_array_needs_a_first_axis_and_a_model_to_begin_with() -> None:
    strategy = Strategy(Mean(), policies=ArrayPolicies.of({"n": "collected"}))
    with pytest.raises(InvalidParameter, match=r"a collected array has the shape \(most, …\)"):
        strategy.check_spec(Spec.of({"n": np.zeros((), np.int64), "w": np.zeros(2)}))
    assert strategy.needs_start
    spec = Spec.of({"n": np.zeros((9, 4), np.int64), "w": np.zeros(2)})
    assert strategy.update_spec(spec) == Spec.of({"n": np.zeros(4, np.int64), "w": np.zeros(2)})


def test_what_others_are_computed_from_is_not_collected() -> None:
    start = {
        "q.base_layer.w": np.zeros((2, 2)),
        "q.lora_A.w": np.zeros((1, 2)),
        "q.lora_B.w": np.zeros((2, 1)),
    }
    strategy = Strategy(FedExLora(), policies=ArrayPolicies.of({"*lora_A*": "collected"}))
    with pytest.raises(InvalidStrategy, match="'q.lora_A.w', which cannot be collected") as raised:
        strategy.check_spec(Spec.of(start))
    assert raised.value.facts == {"field": "array_policies"}


def test_a_model_may_be_nothing_but_a_collection() -> None:
    strategy = Strategy(Mean(), policies=ArrayPolicies.of({"t": "collected"}))

    found = fold_arrays(strategy, [{"t": np.array([7, 8], np.uint8)}], {"t": np.zeros((2, 2), np.uint8)})

    assert found["t"].tolist() == [[7, 8], [0, 0]]


def test_a_simulation_collects() -> None:
    def train(weights: Any, config: Any, round_number: int) -> Trained:
        return Trained({"trees": np.array([round_number, len(weights["trees"])], np.uint8)})

    found = simulate(
        {"aggregator": "mean", "requirement": "all_clients", "array_policies": {"trees": "collected"}},
        [SimulatedClient(name, train) for name in "ab"],
        rounds=2,
        initial={"trees": np.zeros((5, 2), np.uint8)},
    )

    assert found.arrays is not None
    assert found.arrays["trees"].tolist() == [[2, 5], [2, 5], [1, 5], [1, 5], [0, 0]]


def test_the_defaults_are_part_of_old_rounds_and_stay() -> None:
    assert set(AVERAGED_BY_DEFAULT) >= {
        "*running_mean",
        "*running_var",
        "*num_batches_tracked",
        "*batch_stats*",
    }


def test_a_simulation_takes_policies_and_refuses_what_the_server_refuses() -> None:
    def train(weights: Any, config: Any, round_number: int) -> Trained:
        return Trained({"head": np.array([9.0]), "w": np.array([2.0])})

    configuration = {"aggregator": "mean", "optimiser": {"name": "fedavgm", "learning_rate": 3.0}}
    initial = {"head": np.zeros(1), "w": np.zeros(1)}
    clients = [SimulatedClient(name, train) for name in "ab"]
    found = simulate(
        {**configuration, "array_policies": {"head": "averaged"}}, clients, rounds=1, initial=initial
    )
    assert {name: array.tolist() for name, array in found.arrays.items()} == {"head": [9.0], "w": [6.0]}
    with pytest.raises(InvalidParameter, match="matches no array"):
        simulate(
            {**configuration, "array_policies": {"tail": "averaged"}}, clients, rounds=1, initial=initial
        )
