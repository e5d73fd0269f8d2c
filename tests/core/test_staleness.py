"""Updates that were trained from older models: discounts, FedBuff, FedAsync, and the weighted mean."""

import numpy as np
import pytest

from fma_core.aggregation.aggregators import FedAsync, FedBuff, FedProx, Mean
from fma_core.aggregation.optimisers import Sgd
from fma_core.aggregation.stages import Exclude
from fma_core.aggregation.staleness import Constant, Hinge, Polynomial, stalenesses
from fma_core.aggregation.strategy import Strategy
from fma_core.engine import Serial, Threads
from fma_core.errors import InvalidStrategy
from fma_core.in_memory import Update, fold_arrays
from tests.core.rounds import Rounds, normal

SIZE = 60
BASES = [3, 0, 2, 3, 0]  # of round 4: nothing, three and one round late
AGES = [0, 3, 1, 0, 3]
EXAMPLES = [4, 1, 7, 2, 3]


@pytest.mark.parametrize(
    ("function", "discounts"),
    [
        (Constant(), [1, 1, 1, 1]),
        (Polynomial(), [1, 2**-0.5, 3**-0.5, 0.1]),
        (Polynomial(a=2.0), [1, 1 / 4, 1 / 9, 1e-4]),
        (Polynomial(a=0.0), [1, 1, 1, 1]),
        (Hinge(), [1, 1, 1, 1 / (10 * 95 + 1)]),
        (Hinge(a=0.5, b=1), [1, 1, 1 / 1.5, 1 / (0.5 * 98 + 1)]),
    ],
)
def test_discounts_are_the_papers(function, discounts):
    found = [function.discount(age) for age in (0, 1, 2, 99)]
    assert found == pytest.approx(discounts, rel=1e-15)
    assert all(0 < discount <= 1 for discount in found)


@pytest.mark.parametrize("function", [Polynomial(a=64.0), Hinge(a=1e308, b=0)])
@pytest.mark.parametrize("rule", [Mean(), FedBuff(normalise="sum_s")])
def test_a_round_of_updates_as_old_as_can_be_still_has_a_mean(rule, function):
    updates = [Update({"w": np.full(2, value)}, staleness=300_000) for value in (1.0, 3.0)]
    found = fold_arrays(Strategy(rule, staleness=function), updates, {"w": np.zeros(2)})
    assert found["w"] == pytest.approx([2, 2], rel=1e-12)


@pytest.mark.parametrize("name", stalenesses.names())
def test_discounts_never_rise_and_a_fresh_update_counts_in_full(name):
    function = stalenesses.build(name)
    found = [function.discount(age) for age in range(200)]
    assert found[0] == 1
    assert found == sorted(found, reverse=True)


def three_rounds_later(folder, strategy, extra=None):
    """Four models, 0 to 3, and updates trained from three of them; the round to fold is the fourth."""
    rounds = Rounds(folder, Strategy(Mean()), {"w": normal(0, SIZE), **(extra or {})})
    models = [rounds.model["w"]]
    models.extend(rounds.play([{"w": normal(number, SIZE), **(extra or {})}])["w"] for number in range(1, 4))
    rounds.strategy = strategy
    changes = normal(9, len(BASES), SIZE)
    sent = [{"w": models[base] + change} for base, change in zip(BASES, changes, strict=True)]
    return rounds, models[3], sent, changes


def fedbuff(s, *, normalise="k"):
    def rule(x, sent, changes):
        total = sum(discount * change for discount, change in zip(s, changes, strict=True))
        return x + total / (len(s) if normalise == "k" else sum(s))

    return rule


def fedasync(alpha, s):
    def rule(x, sent, changes):
        for discount, x_i in zip(s, sent, strict=True):
            alpha_t = alpha * discount
            x = (1 - alpha_t) * x + alpha_t * x_i
        return x

    return rule


def weighted_mean_of_weights(s):
    return lambda x, sent, changes: np.average(sent, axis=0, weights=np.multiply(EXAMPLES, s))


def weighted_mean_of_changes(s):
    return lambda x, sent, changes: x + np.average(changes, axis=0, weights=np.multiply(EXAMPLES, s))


ROOT = [(1 + age) ** -0.5 for age in AGES]
HINGE = [1 if age <= 1 else 1 / (2 * (age - 1) + 1) for age in AGES]
CASES = [
    (Strategy(FedBuff()), fedbuff(ROOT)),
    (Strategy(FedBuff(normalise="sum_s")), fedbuff(ROOT, normalise="sum_s")),
    (Strategy(FedBuff(), staleness=Hinge(a=2.0, b=1)), fedbuff(HINGE)),
    (Strategy(FedBuff(), staleness=Constant()), fedbuff([1] * 5)),
    (Strategy(FedBuff(), optimiser=Sgd(0.5)), lambda *a: a[0] + 0.5 * (fedbuff(ROOT)(*a) - a[0])),
    (Strategy(FedAsync()), fedasync(0.6, ROOT)),
    (Strategy(FedAsync(alpha=0.9, a=1.0)), fedasync(0.9, [1 / (1 + age) for age in AGES])),
    (Strategy(FedAsync(), staleness=Hinge(a=2.0, b=1)), fedasync(0.6, HINGE)),
    (Strategy(Mean()), weighted_mean_of_weights([1] * 5)),
    (Strategy(Mean(), staleness=Polynomial()), weighted_mean_of_weights(ROOT)),
    (Strategy(FedProx(), staleness=Hinge(a=2.0, b=1)), weighted_mean_of_weights(HINGE)),
    (Strategy(Mean(), optimiser=Sgd(), staleness=Polynomial()), weighted_mean_of_changes(ROOT)),
]


@pytest.mark.parametrize(("strategy", "reference"), CASES)
def test_updates_with_bases_of_their_own(strategy, reference, tmp_path):
    rounds, x, sent, changes = three_rounds_later(tmp_path, strategy)
    found = rounds.play(sent, num_examples=EXAMPLES, bases=BASES)["w"]
    expected = reference(x, [update["w"] for update in sent], changes)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("strategy", [Strategy(FedBuff(), update_kind="delta"), Strategy(FedBuff())])
def test_changes_may_be_sent_or_measured(strategy, tmp_path):
    rounds, x, sent, changes = three_rounds_later(tmp_path, strategy)
    if strategy.update_kind == "delta":
        sent = [{"w": change} for change in changes]
    found = rounds.play(sent, bases=BASES)["w"]
    np.testing.assert_allclose(found, fedbuff(ROOT)(x, None, changes), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("strategy", [case[0] for case in CASES])
def test_a_retry_and_any_executor_give_the_same_bytes(strategy, tmp_path):
    rounds, _, sent, _ = three_rounds_later(tmp_path, strategy)
    found = {
        rounds.fold(sent, num_examples=EXAMPLES, bases=BASES, executor=executor, block_columns=width)
        for executor, width in [(Serial(), None), (Serial(), None), (Serial(), 7), (Threads(3), 11)]
    }
    assert len(found) == 1


@pytest.mark.parametrize("rule", [FedBuff(), FedAsync()])
def test_personal_arrays_stay_and_integers_are_averaged(rule, tmp_path):
    extra = {"bn": np.array([-0.0, 2.0]), "n": np.array([1, 2])}
    rounds, _, sent, _ = three_rounds_later(tmp_path, Strategy(rule, stages=(Exclude(("bn",)),)), extra)
    found = rounds.play([{**update, "n": np.array([i, 9])} for i, update in enumerate(sent)], bases=BASES)
    assert found["bn"].tobytes() == extra["bn"].tobytes()
    assert found["n"].tolist() == [2, 9]


def test_fedasync_that_takes_a_fresh_update_whole_becomes_it(tmp_path):
    rounds = Rounds(tmp_path, Strategy(FedAsync(alpha=1.0)), {"w": normal(1, SIZE).astype(np.float32)})
    sent = [{"w": normal(seed, SIZE).astype(np.float32)} for seed in (2, 3)]
    assert rounds.play(sent)["w"].tobytes() == sent[1]["w"].tobytes()


def test_fedasync_mixes_in_the_order_of_the_rows(tmp_path):
    rounds = Rounds(tmp_path, Strategy(FedAsync(alpha=0.5)), {"w": np.zeros(1)})
    one, two = {"w": np.ones(1)}, {"w": np.full(1, 2.0)}
    assert rounds.fold([one, two]) != rounds.fold([two, one])
    assert rounds.play([one, two])["w"] == 1.25


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"update_kind": "delta"}, "update_kind"),
        ({"optimiser": Sgd()}, "optimiser"),
    ],
)
def test_fedasync_needs_the_weights_and_takes_the_whole_step(options, field):
    with pytest.raises(InvalidStrategy) as raised:
        Strategy(FedAsync(), **options)
    assert raised.value.facts["field"] == field
