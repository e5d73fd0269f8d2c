"""Server optimisers against their papers' equations, over rounds whose state goes through real files."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from fma_core.aggregation.aggregators import Aggregator, FedBuff, Mean, aggregators
from fma_core.aggregation.optimisers import FedAdagrad, FedAdam, FedAvgM, FedYogi, Optimiser, Sgd, optimisers
from fma_core.aggregation.stages import Bucketing, ClipNorm, NearestNeighbourMixing
from fma_core.aggregation.staleness import Polynomial
from fma_core.aggregation.strategy import Strategy
from fma_core.engine import Serial, Threads
from fma_core.errors import NonFiniteResult, UnreadableModel
from fma_core.in_memory import ArrayRounds, Update
from tests.core.rounds import Rounds, case_id, normal
from tests.core.test_contract_suite import AGGREGATORS

SIZE, NUM_ROUNDS = 301, 6
DELTAS = normal(1, NUM_ROUNDS, SIZE) * np.logspace(-6, 1, SIZE)


def sgd(p, deltas):
    for delta in deltas:
        yield p.learning_rate * delta


def fedavgm(p, deltas):
    v = 0
    for delta in deltas:
        v = p.momentum * v + delta
        yield p.learning_rate * v


def adaptive(p, deltas):
    """Algorithm 2 of Reddi et al., value by value; with the correction, algorithm 1 of Kingma and Ba."""
    corrected = getattr(p, "bias_correction", False)
    m, v = np.zeros(SIZE), np.full(SIZE, 0.0 if corrected else p.tau * p.tau)
    for t, delta in enumerate(deltas, start=1):
        step = np.empty(SIZE)
        for i, d in enumerate(delta):
            m[i] = p.beta1 * m[i] + (1 - p.beta1) * d
            if isinstance(p, FedAdagrad):
                v[i] = v[i] + d * d
            elif isinstance(p, FedAdam):
                v[i] = p.beta2 * v[i] + (1 - p.beta2) * d * d
            else:
                v[i] = v[i] - (1 - p.beta2) * d * d * np.sign(v[i] - d * d)
            m_hat = m[i] / (1 - p.beta1**t) if corrected else m[i]
            v_hat = v[i] / (1 - p.beta2**t) if corrected else v[i]
            step[i] = p.learning_rate * m_hat / (np.sqrt(v_hat) + p.tau)
        yield step


CASES = [
    (Sgd(), sgd),
    (Sgd(0.3), sgd),
    (FedAvgM(), fedavgm),
    (FedAvgM(momentum=0.5, learning_rate=2.0), fedavgm),
    (FedAdagrad(), adaptive),
    (FedAdagrad(beta1=0.4, learning_rate=1.0, tau=0.1), adaptive),
    (FedAdam(), adaptive),
    (FedAdam(bias_correction=True), adaptive),
    (FedAdam(beta1=0.0, beta2=0.5, tau=1e-8), adaptive),
    (FedYogi(), adaptive),
    (FedYogi(bias_correction=True, learning_rate=1.0), adaptive),
]


@pytest.mark.parametrize(("optimiser", "reference"), CASES, ids=case_id)
def test_rounds_through_files_are_the_papers_equations(optimiser, reference, tmp_path):
    x = normal(2, SIZE)
    rounds = Rounds(tmp_path, Strategy(Mean(), optimiser=optimiser, update_kind="delta"), {"w": x})
    for delta, step in zip(DELTAS, reference(optimiser, DELTAS), strict=True):
        x = x + step
        np.testing.assert_allclose(rounds.play([{"w": delta}])["w"], x, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("optimiser", [case[0] for case in CASES], ids=case_id)
def test_files_between_rounds_lose_no_bit(optimiser, tmp_path):
    x, kept = normal(2, SIZE), {name: np.full(SIZE, fill) for name, fill in optimiser.states.items()}
    rounds = Rounds(tmp_path, Strategy(Mean(), optimiser=optimiser, update_kind="delta"), {"w": x})
    for number, delta in enumerate(DELTAS, start=1):
        x = x + optimiser.step(delta.copy(), kept, number)
        assert rounds.play([{"w": delta}])["w"].tobytes() == x.tobytes()
        for name, values in kept.items():
            assert rounds.state[f"optimiser.{name}/w"].tobytes() == values.tobytes()


@pytest.mark.parametrize("name", optimisers.names())
def test_a_retry_and_any_executor_give_the_same_bytes(name, tmp_path):
    strategy = Strategy(Mean(), optimiser=optimisers.build(name))
    start: dict[str, np.ndarray] = {
        "a": normal(3, 70_001).astype(np.float32),
        "b": normal(4, 5),
        "n": np.arange(3),
    }
    rounds = Rounds(tmp_path, strategy, start)
    sent = [{key: (value + i + 1).astype(value.dtype) for key, value in start.items()} for i in range(3)]
    rounds.play(sent, num_examples=[1, 2, 3])
    found = {
        rounds.fold(sent, num_examples=[1, 2, 3], executor=executor, block_columns=width)
        for executor, width in [(Serial(), None), (Serial(), None), (Threads(3), 777), (Threads(2), 10**6)]
    }
    assert len(found) == 1


@pytest.mark.parametrize("name", optimisers.names())
def test_integers_and_personal_arrays_have_neither_steps_nor_state(name, tmp_path):
    strategy = Strategy.build(
        Mean(),
        optimiser={"name": name},
        stages=[{"name": "exclude", "patterns": ["norm.*"]}],
    )
    start = {
        "w": np.zeros(2, np.float16),
        "norm.w": np.array([-0.0, 7]),
        "n": np.array([1, 5]),
        "t": np.array(True),
    }
    rounds = Rounds(tmp_path, strategy, start)
    sent = {"w": np.ones(2, np.float16), "n": np.array([2, 8]), "t": np.array(False)}
    for _ in range(2):
        model = rounds.play([sent, sent])
    assert model["norm.w"].tobytes() == start["norm.w"].tobytes()
    assert model["n"].tolist() == [2, 8]
    assert not model["t"]
    kept = {f"optimiser.{state}/w" for state in optimisers.build(name).states}
    assert set(rounds.state) == (kept | {"num_steps"} if kept else set())
    assert all(rounds.state[state].dtype == np.float64 for state in kept)


def test_weights_that_are_sent_are_compared_with_the_model(tmp_path):
    start = {"w": normal(5, SIZE)}
    changes = [normal(6, SIZE), normal(7, SIZE)]
    rounds = Rounds(tmp_path, Strategy(Mean(), optimiser=Sgd(0.5)), start)
    found = rounds.play([{"w": start["w"] + change} for change in changes], num_examples=[1, 3])["w"]
    expected = start["w"] + 0.5 * np.average(changes, axis=0, weights=[1, 3])
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_the_state_counts_its_steps(tmp_path):
    rounds = Rounds(tmp_path, Strategy(Mean(), optimiser=FedAdam()), {"w": np.zeros(2)})
    for number in range(1, 4):
        rounds.play([{"w": np.ones(2)}])
        assert rounds.state["num_steps"] == number


@pytest.mark.parametrize(
    ("optimiser", "v"), [(FedAdagrad(tau=0.5), 0.25), (FedAdam(), 1e-6), (FedYogi(), 1e-6)]
)
def test_v_starts_at_tau_squared(optimiser, v):
    assert optimiser.states == {"m": 0, "v": v}


@pytest.mark.parametrize("optimiser", [FedAdam(bias_correction=True), FedYogi(bias_correction=True)])
def test_the_first_corrected_step_is_the_learning_rate(optimiser):
    kept = {name: np.full(2, fill) for name, fill in optimiser.states.items()}
    step = optimiser.step(np.array([3.0, -50.0]), kept, 1)
    np.testing.assert_allclose(step, optimiser.learning_rate * np.array([1, -1]), rtol=1e-3)


def test_a_state_that_overflows_fails_the_round(tmp_path):
    strategy = Strategy(Mean(), optimiser=FedAdam(), update_kind="delta")
    rounds = Rounds(tmp_path, strategy, {"a": np.zeros(3), "b": np.zeros(3)})
    with pytest.raises(
        NonFiniteResult, match=r"'b' of the state 'optimiser.v' .* overflowed float64"
    ) as raised:
        rounds.play([{"a": np.ones(3), "b": np.array([0, 1e200, 0])}])
    assert raised.value.facts == {"array": "b"}


def test_a_step_that_overflows_the_model_fails_the_round(tmp_path):
    strategy = Strategy(Mean(), optimiser=Sgd(1e9), update_kind="delta")
    rounds = Rounds(tmp_path, strategy, {"w": np.zeros(3, np.float32)})
    with pytest.raises(NonFiniteResult, match="overflowed float32"):
        rounds.play([{"w": np.array([0, 1e30, 0], np.float32)}])


def test_the_state_of_another_optimiser_is_refused(tmp_path):
    rounds = Rounds(tmp_path, Strategy(Mean(), optimiser=FedAvgM()), {"w": np.zeros(3)})
    rounds.play([{"w": np.ones(3)}])
    rounds.strategy = Strategy(Mean(), optimiser=FedAdam())
    with pytest.raises(UnreadableModel, match="state 1"):
        rounds.play([{"w": np.ones(3)}])


@dataclass(frozen=True)
class AnswersWithItsState(Optimiser):
    @property
    def states(self):
        return {"v": 0}  # not a float: what is kept is float64 all the same

    def step(self, delta, state, num_steps):
        state["v"][:] = delta
        return state["v"]


@dataclass(frozen=True)
class RuleThatAnswersWithItsState(Aggregator[None]):
    @property
    def states(self):
        return {"v": 0.0}

    def combine(self, block, decision):
        kept = block.state("v")
        kept[:] = block.row(0)
        return kept


@pytest.mark.parametrize(
    "strategy",
    [
        Strategy(Mean(), optimiser=AnswersWithItsState(), update_kind="delta"),
        Strategy(RuleThatAnswersWithItsState(), update_kind="delta"),
        Strategy(RuleThatAnswersWithItsState(), optimiser=Sgd(2.0), update_kind="delta"),
    ],
)
def test_a_part_may_answer_with_its_own_state(strategy, tmp_path):
    rounds = Rounds(tmp_path, strategy, {"w": np.full(3, 10.0)})
    rounds.play([{"w": np.full(3, 1.5)}])
    (kept,) = [values for name, values in rounds.state.items() if name != "num_steps"]
    assert kept.tolist() == [1.5, 1.5, 1.5]


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("sgd", {"learning_rate": 0}),
        ("fedavgm", {"momentum": 1}),
        ("fedadagrad", {"beta2": 0.9}),
        ("fedadam", {"beta1": 1}),
        ("fedadam", {"tau": 0}),
        ("fedyogi", {"bias_correction": 1}),
    ],
)
def test_parameters_out_of_range_are_refused(name, params):
    (parameter,) = params
    with pytest.raises(Exception, match=f"parameter '{parameter}'"):
        optimisers.build(name, params)


def _strategies():
    """Every rule that measures from bases, alone and with an optimiser, and what may come before and beside one."""
    rules = {
        name: aggregators.build(name, AGGREGATORS[name].params) for name in {*AGGREGATORS} - {"fedex_lora"}
    }
    found = {name: Strategy(rule) for name, rule in rules.items() if not rule.acts_on_weights}
    # The smaller τ is, the further a remainder of rounding would go.
    found |= {
        f"{name}, fedadam": Strategy(rule, optimiser=FedAdam(tau=1e-12))
        for name, rule in rules.items()
        if rule.takes_optimiser
    }
    found |= {
        f"{type(stage).__name__}, sgd": Strategy(Mean(), stages=(stage,), optimiser=Sgd())
        for stage in (ClipNorm(1e-3), Bucketing(size=3), NearestNeighbourMixing(f=1))
    }
    found["mean, staleness, fedyogi"] = Strategy(Mean(), optimiser=FedYogi(), staleness=Polynomial())
    found["fedbuff, staleness"] = Strategy(FedBuff(normalise="sum_s"), staleness=Polynomial(0.3))
    return dict(sorted(found.items()))


STRATEGIES = _strategies()


@pytest.mark.parametrize("name", STRATEGIES)
def test_what_nobody_changed_stays_as_it_is(name):
    strategy = STRATEGIES[name]
    rng = np.random.default_rng(5)
    models: list[dict[str, Any]] = [
        {"w": rng.normal(size=400), "x": rng.normal(size=400).astype(np.float32)} for _ in range(2)
    ]
    model, older = models
    payloads = {
        f"{payload}/{key}": np.zeros_like(model[key])
        for payload in strategy.aggregator.payloads
        for key in model
    }
    # One column differs, so that what is summed once more is a part of a block.
    updates = []
    for index in range(strategy.min_updates + 6):
        from_older = index % 3 == 1 and strategy.aggregator.relative_to == "base"
        base = older if from_older else model
        arrays = {key: array.copy() for key, array in base.items()} | payloads
        arrays["w"][7] += 1 + index
        updates.append(
            Update(
                arrays,
                num_examples=int(rng.integers(1, 10**12)),
                staleness=index % 4,
                client="root" if index == 0 else str(index),
                base=older if from_older else None,
                metrics={"num_steps": 1 + index, "base_loss": 1.0 + index},
            )
        )
    rounds = ArrayRounds(strategy, model)
    for _ in range(2):
        found: Any = rounds.play([replace(update, base=update.base or model) for update in updates])
        assert np.delete(found["w"], 7).tobytes() == np.delete(model["w"], 7).tobytes()
        assert found["x"].tobytes() == model["x"].tobytes()
