"""FedProx, FedNova, q-FedAvg: against their papers' equations, and what they were invented for."""

import math
from fractions import Fraction

import numpy as np
import pytest

from fma_core.aggregation.aggregators import FedNova, FedProx, Mean, QFedAvg, aggregators
from fma_core.aggregation.optimisers import Sgd
from fma_core.aggregation.stages import Exclude
from fma_core.aggregation.strategy import Strategy
from fma_core.errors import NoUpdates
from fma_core.kernels import one_blas_thread
from tests.core.rounds import Rounds, case_id, normal

X, DELTAS = normal(1, 40), normal(2, 3, 40)
EXAMPLES, STEPS, LOSSES = [10, 30, 5], [4.0, 1.0, 17.0], [0.5, 2.0, 1e-3]


def mean(x, deltas):
    return x + np.average(deltas, axis=0, weights=EXAMPLES)


def fednova(x, deltas):
    p = [n / sum(EXAMPLES) for n in EXAMPLES]
    tau_eff = sum(p_i * tau for p_i, tau in zip(p, STEPS, strict=True))
    return x + tau_eff * sum(p_i * d / tau for p_i, d, tau in zip(p, deltas, STEPS, strict=True))


def qfedavg(q, learning_rate):
    def rule(x, deltas):
        lipschitz, numerator, denominator = 1 / learning_rate, 0, 0
        for d, loss in zip(deltas, LOSSES, strict=True):
            gradient = lipschitz * (x - (x + d))
            numerator = numerator + loss**q * gradient
            denominator += q * loss ** (q - 1) * np.sum(gradient**2) + lipschitz * loss**q
        return x - numerator / denominator

    return rule


RULES = [
    (FedProx(), mean),
    (FedNova(), fednova),
    (QFedAvg(), qfedavg(0.2, 0.1)),
    (QFedAvg(q=1.0, client_learning_rate=0.01), qfedavg(1, 0.01)),
    (QFedAvg(q=3.0, client_learning_rate=1.0), qfedavg(3, 1)),
    (QFedAvg(q=0.0), qfedavg(0, 0.1)),
]
METRICS = {"num_steps": STEPS, "base_loss": LOSSES}


@pytest.mark.parametrize("kind", ["weights", "delta"])
@pytest.mark.parametrize(("rule", "reference"), RULES, ids=case_id)
def test_rounds_are_the_papers_equations(rule, reference, kind, tmp_path):
    rounds, x = Rounds(tmp_path, Strategy(rule, update_kind=kind), {"w": X}), X
    for _ in range(3):
        sent = [{"w": rounds.model["w"] + d if kind == "weights" else d} for d in DELTAS]
        found = rounds.play(sent, num_examples=EXAMPLES, metrics=METRICS)["w"]
        x = reference(x, DELTAS)
        np.testing.assert_allclose(found, x, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(("rule", "reference"), RULES, ids=case_id)
def test_a_retry_any_width_and_any_optimiser_of_one_give_the_same_bytes(rule, reference, tmp_path):
    sent = [{"w": (X + d).astype(np.float32)} for d in DELTAS]
    found = set()
    for strategy in (Strategy(rule), Strategy(rule), Strategy(rule, optimiser=Sgd())):
        rounds = Rounds(tmp_path, strategy, {"w": X.astype(np.float32)})
        found.add(rounds.fold(sent, num_examples=EXAMPLES, metrics=METRICS, block_columns=7)[0])
        found.add(rounds.fold(sent, num_examples=EXAMPLES, metrics=METRICS)[0])
    assert len(found) <= (
        2 if isinstance(rule, FedProx) else 1
    )  # whose rows alone are weights without an optimiser


@pytest.mark.parametrize(("rule", "reference"), RULES, ids=case_id)
def test_personal_arrays_stay_and_integers_are_averaged(rule, reference, tmp_path):
    start = {"w": X, "bn.mean": np.array([-0.0, 3]), "bn.count": np.array(7), "n": np.array([0, 2])}
    rounds = Rounds(tmp_path, Strategy(rule, stages=(Exclude(("bn.*",)),)), start)
    assert rounds.strategy.update_spec(rounds.spec).names == ("n", "w")
    sent = [{"w": X + d, "n": np.array([i, 2])} for i, d in enumerate(DELTAS)]
    found = rounds.play(sent, num_examples=EXAMPLES, metrics=METRICS)
    np.testing.assert_allclose(found["w"], reference(X, DELTAS), rtol=1e-11, atol=1e-13)
    assert found["bn.mean"].tobytes() == start["bn.mean"].tobytes()
    assert found["bn.count"] == 7
    assert found["n"].tolist() == [1, 2]  # (0·10 + 1·30 + 2·5) / 45, and the plain mean


def test_fedprox_is_the_mean_and_tells_clients_mu(tmp_path):
    sent = [{"w": X + d} for d in DELTAS]
    bodies = {
        Rounds(tmp_path, Strategy(rule), {"w": X}).fold(sent, num_examples=EXAMPLES)[0]
        for rule in (Mean(), FedProx(), FedProx(mu=3.0))
    }
    assert len(bodies) == 1
    assert FedProx(mu=3.0).client_config == {"mu": 3.0}


def test_fednova_with_equal_steps_is_the_mean_of_the_changes_bit_for_bit(tmp_path):
    bodies = {
        Rounds(tmp_path, Strategy(rule, update_kind="delta"), {"w": X}).fold(
            [{"w": d} for d in DELTAS], num_examples=EXAMPLES, metrics={"num_steps": [7] * 3}
        )[0]
        for rule in (Mean(), FedNova())
    }
    assert len(bodies) == 1


def test_fednova_finds_the_optimum_although_clients_take_unequal_steps(tmp_path):
    # f_i(x) = ½‖x − b_i‖², so that the optimum is the mean of the b_i; plain averaging pulls it to who steps most.
    targets, steps, learning_rate = normal(3, 3, 4), [1, 5, 20], 0.004
    optimum = targets.mean(axis=0)
    distances = {}
    for rule in (FedNova(), Mean()):
        rounds = Rounds(tmp_path, Strategy(rule), {"w": np.zeros(4)})
        with one_blas_thread():  # once, not in each of the folds, where it takes longer than all else
            for _ in range(100):
                sent = []
                for target, count in zip(targets, steps, strict=True):
                    y = rounds.model["w"]
                    for _ in range(count):
                        y = y - learning_rate * (y - target)
                    sent.append({"w": y})
                rounds.play(sent, metrics={"num_steps": steps})
        distances[type(rule)] = np.linalg.norm(rounds.model["w"] - optimum)
    assert distances[FedNova] < 0.1 * distances[Mean]


def test_qfedavg_without_q_is_the_plain_mean(tmp_path):
    rounds = Rounds(tmp_path, Strategy(QFedAvg(q=0.0)), {"w": X})
    found = rounds.play(
        [{"w": X + d} for d in DELTAS], num_examples=[1, 100, 0], metrics={"base_loss": [0, 1, 2]}
    )
    np.testing.assert_allclose(found["w"], X + DELTAS.mean(axis=0), rtol=1e-12)


def test_qfedavg_with_nothing_left_to_learn_stays(tmp_path):
    rounds = Rounds(tmp_path, Strategy(QFedAvg(q=2.0)), {"w": X})
    found = rounds.play([{"w": X + d} for d in DELTAS], metrics={"base_loss": [0.0] * 3})
    assert found["w"].tobytes() == X.tobytes()


def test_qfedavg_listens_to_the_worse_off(tmp_path):
    rounds = Rounds(tmp_path, Strategy(QFedAvg(q=2.0)), {"w": np.zeros(2)})
    found = rounds.play(
        [{"w": np.array([1.0, 0])}, {"w": np.array([0, 1.0])}], metrics={"base_loss": [1.0, 3.0]}
    )
    assert found["w"][1] == pytest.approx(9 * found["w"][0])


@pytest.mark.parametrize("q", [0.2, 1.0, 8.0, 8.5, 25.0, 26.0, 30.0, 200.0, 1000.0])
@pytest.mark.parametrize(
    "losses", [[1e12, 5e11, 1.0], [1e-12, 2e-12, 3e-12], [3.0, 2.5, 1e-12], [7.0, 7.0, 7.0]]
)
def test_qfedavg_is_exact_for_any_fairness_and_loss(q, losses, tmp_path):
    # Fractions have no range. q is split into halves, so that only a square root of each loss is rounded.
    halves, lipschitz = round(2 * q), 8
    exact = 2 * q == halves
    roots = [Fraction(math.sqrt(loss)) for loss in losses] if exact else []
    deltas = np.array([[1.0, 0], [0, -2.0], [0.5, 0.25]])
    found = Rounds(tmp_path, Strategy(QFedAvg(q=q, client_learning_rate=1 / lipschitz)), {"w": np.zeros(2)})
    found = found.play([{"w": delta} for delta in deltas], metrics={"base_loss": losses})["w"]
    norms = [Fraction(float(delta @ delta)) for delta in deltas]
    if exact:
        powers = [root**halves for root in roots]
        slopes = [Fraction(q) * power / root**2 for power, root in zip(powers, roots, strict=True)]
    else:
        powers = [Fraction(loss**q) for loss in losses]
        slopes = [Fraction(q * loss ** (q - 1)) for loss in losses]
    h = [s * lipschitz**2 * n + lipschitz * p for s, n, p in zip(slopes, norms, powers, strict=True)]
    for column in range(2):
        steps = [lipschitz * p * Fraction(d[column]) for p, d in zip(powers, deltas.tolist(), strict=True)]
        assert found[column] == pytest.approx(
            float(sum(steps) / sum(h)), rel=1e-10 * max(1, q / 100), abs=1e-300
        )


def test_an_update_whose_metrics_overflow_is_left_out(tmp_path):
    rounds = Rounds(tmp_path, Strategy(FedNova()), {"w": X})
    found = rounds.play([{"w": X + d} for d in DELTAS], metrics={"num_steps": [1e-300, 1e300, 1.0]})
    assert np.isfinite(found["w"]).all()


@pytest.mark.parametrize("rule", [FedProx(), FedNova()])
def test_no_examples_at_all_are_an_error(rule, tmp_path):
    rounds = Rounds(tmp_path, Strategy(rule), {"w": X})
    with pytest.raises(NoUpdates, match="at least one example"):
        rounds.play([{"w": X}] * 3, num_examples=[0] * 3, metrics=METRICS)


@pytest.mark.parametrize(
    ("rule", "name", "good", "bad"),
    [
        (FedNova(), "num_steps", [1, 1.5, 1e9], [0, 0.5, 5e-324, -1, 1e308, np.inf, np.nan]),
        (QFedAvg(), "base_loss", [1e-9, 3], [0, 1e-300, -1e-9, 1e300, np.inf, np.nan]),
        (QFedAvg(q=1.0), "base_loss", [0, 1], [-1, np.nan]),
        (QFedAvg(q=0.0), "base_loss", [0, 1], [-1, np.inf]),
    ],
)
def test_metrics_that_mean_nothing_are_refused(rule, name, good, bad):
    assert rule.required_metrics == (name,)
    for value in good:
        rule.check_metric(name, value)
    for value in bad:
        with pytest.raises(ValueError, match=f"^{name} must be "):
            rule.check_metric(name, value)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("fedprox", {"mu": -1}),
        ("qfedavg", {"q": -0.1}),
        ("qfedavg", {"client_learning_rate": 0}),
        ("feddyn", {"alpha": 0}),
        ("fedasync", {"alpha": 1.1}),
        ("fedasync", {"a": -1}),
        ("fedbuff", {"normalise": "none"}),
        ("fedex_lora", {"scaling": 0}),
        ("fedex_lora", {"a": ""}),
        ("fedex_lora", {"b": ".lora_A."}),
    ],
)
def test_parameters_out_of_range_are_refused(name, params):
    (parameter,) = params
    with pytest.raises(Exception, match=rf"\b{parameter}\b"):
        aggregators.build(name, params)
