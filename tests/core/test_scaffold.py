"""SCAFFOLD and FedDyn: clients with different data agree on the common optimum, where FedAvg stays away from it.

Client i has f_i(x) = ½‖A_i x − b_i‖². The clients below are the papers' algorithms; only if the server's signs and
factors are right do they end at argmin Σ f_i.
"""

import numpy as np
import pytest

from fma_core.aggregation.aggregators import FedDyn, Mean, Scaffold
from fma_core.aggregation.optimisers import Sgd
from fma_core.aggregation.stages import Exclude
from fma_core.aggregation.strategy import Strategy
from fma_core.engine import Serial, Threads
from fma_core.errors import NonFiniteResult
from fma_core.kernels import one_blas_thread
from tests.core.rounds import Rounds, normal

NUM_CLIENTS, SIZE, LOCAL_STEPS, RATE = 4, 3, 5, 0.05
A = normal(1, NUM_CLIENTS, 6, SIZE) / 2
B = normal(2, NUM_CLIENTS, 6) * 3
OPTIMUM = np.linalg.lstsq(A.reshape(-1, SIZE), B.reshape(-1), rcond=None)[0]
EVERYONE = tuple(range(NUM_CLIENTS))


def gradient(i, x):
    return A[i].T @ (A[i] @ x - B[i])


def train_plainly(rounds, who, kept):
    sent = []
    for i in who:
        y = rounds.model["w"]
        for _ in range(LOCAL_STEPS):
            y = y - RATE * gradient(i, y)
        sent.append({"w": y})
    return sent


def train_scaffold(rounds, who, kept):
    x, c = rounds.model["w"], rounds.state.get("aggregator.c/w", np.zeros(SIZE))
    sent = []
    for i in who:
        c_i, y = kept.get(i, np.zeros(SIZE)), x
        for _ in range(LOCAL_STEPS):
            y = y - RATE * (gradient(i, y) - c_i + c)
        kept[i] = c_i - c + (x - y) / (LOCAL_STEPS * RATE)
        sent.append({"w": y, "control/w": kept[i] - c_i})
    return sent


def train_feddyn(rounds, who, kept):
    x, alpha = rounds.model["w"], rounds.strategy.aggregator.client_config["alpha"]
    sent = []
    for i in who:
        g = kept.get(i, np.zeros(SIZE))
        # The minimum of f_i(θ) − ⟨g, θ⟩ + α/2 ‖θ − x‖², exactly.
        theta = np.linalg.solve(A[i].T @ A[i] + alpha * np.eye(SIZE), A[i].T @ B[i] + g + alpha * x)
        kept[i] = g - alpha * (theta - x)
        sent.append({"w": theta})
    return sent


def distance_after(num_rounds, rule, train, folder, *, per_round=NUM_CLIENTS):
    rounds = Rounds(folder, Strategy(rule), {"w": np.zeros(SIZE)}, num_clients=NUM_CLIENTS)
    kept = {}
    with one_blas_thread():  # once, not in each of the folds, where it takes longer than all else
        for number in range(num_rounds):
            who = [(number * per_round + k) % NUM_CLIENTS for k in range(per_round)]
            rounds.play(train(rounds, who, kept))
    return np.linalg.norm(rounds.model["w"] - OPTIMUM)


@pytest.mark.parametrize("per_round", [NUM_CLIENTS, 2, 3])
@pytest.mark.parametrize(("rule", "train"), [(Scaffold(), train_scaffold), (FedDyn(alpha=1.0), train_feddyn)])
def test_clients_with_different_data_find_the_common_optimum(rule, train, per_round, tmp_path):
    assert distance_after(90, rule, train, tmp_path, per_round=per_round) < 1e-4


def test_fedavg_stays_away_from_it(tmp_path):
    assert distance_after(90, Mean(), train_plainly, tmp_path) > 0.05


def play_scaffold(rounds, num_rounds, num_clients):
    """The server's two equations, in one go; clients send what the seed says."""
    x, c = rounds.model["w"].astype(np.float64), np.zeros_like(rounds.model["w"])
    for number in range(num_rounds):
        changes, controls = normal(number, 3, x.size), normal(100 + number, 3, x.size)
        rounds.play(
            [{"w": x + d, "control/w": dc} for d, dc in zip(changes, controls, strict=True)],
            num_examples=[1, 50, 0],
        )
        x = x + changes.mean(axis=0)
        c = c + len(changes) / num_clients * controls.mean(axis=0)
    return x, c


@pytest.mark.parametrize("num_clients", [3, 10])
def test_scaffold_keeps_the_mean_control_over_all_clients(num_clients, tmp_path):
    rounds = Rounds(tmp_path, Strategy(Scaffold()), {"w": normal(9, 50)}, num_clients)
    x, c = play_scaffold(rounds, 4, num_clients)
    np.testing.assert_allclose(rounds.model["w"], x, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(rounds.state["aggregator.c/w"], c, rtol=1e-12, atol=1e-14)


def test_scaffold_steps_by_the_optimisers_learning_rate(tmp_path):
    rounds = Rounds(tmp_path, Strategy(Scaffold(), optimiser=Sgd(0.5)), {"w": np.zeros(2)}, 1)
    sent = [{"w": np.array([2.0, 4.0]), "control/w": np.ones(2)}]
    assert rounds.play(sent)["w"].tolist() == [1, 2]
    assert rounds.state["aggregator.c/w"].tolist() == [1, 1]


@pytest.mark.parametrize("num_clients", [3, 10])
def test_feddyn_is_the_papers_equations_over_rounds(num_clients, tmp_path):
    alpha, x, h = 0.1, normal(9, 50), 0
    rounds = Rounds(tmp_path, Strategy(FedDyn(alpha=alpha)), {"w": x}, num_clients)
    for number in range(4):
        sent = x + normal(number, 3, 50)
        rounds.play([{"w": row} for row in sent])
        h = h - alpha / num_clients * sum(row - x for row in sent)
        x = sum(sent) / len(sent) - h / alpha
        np.testing.assert_allclose(rounds.state["aggregator.h/w"], h, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(rounds.model["w"], x, rtol=1e-11, atol=1e-13)


def test_feddyn_compares_with_the_rounds_start_whatever_a_client_trained_from(tmp_path):
    rounds = Rounds(tmp_path, Strategy(FedDyn()), {"w": np.zeros(5)}, 2)
    rounds.play([{"w": normal(1, 5)}, {"w": normal(2, 5)}])
    sent = [{"w": normal(3, 5)}, {"w": normal(4, 5)}]
    assert rounds.fold(sent, bases=[0, 1]) == rounds.fold(sent)


def test_clients_that_left_after_they_answered_still_count(tmp_path):
    bodies = set()
    for num_clients in (0, 2):
        rounds = Rounds(tmp_path, Strategy(Scaffold()), {"w": np.zeros(3)}, num_clients)
        bodies.add(rounds.fold([{"w": np.ones(3), "control/w": np.ones(3)}] * 2))
    assert len(bodies) == 1


def mixed_model():
    return {
        "a": normal(1, 70_001).astype(np.float32),
        "bn": normal(2, 3),
        "n": np.array([1, 2]),
        "z": normal(3, 2, 2).astype(np.float16),
    }


@pytest.mark.parametrize("rule", [Scaffold(), FedDyn()])
def test_a_retry_and_any_executor_give_the_same_bytes(rule, tmp_path):
    start = mixed_model()
    rounds = Rounds(tmp_path, Strategy(rule), start, num_clients=5)
    payloads = {f"control/{name}": start[name] for name in ("a", "bn", "z")} if rule.payloads else {}
    sent = [
        {name: (value + i).astype(value.dtype) for name, value in (start | payloads).items()}
        for i in range(3)
    ]
    rounds.play(sent)
    found = {
        rounds.fold(sent, executor=executor, block_columns=width)
        for executor, width in [(Serial(), None), (Serial(), None), (Threads(3), 777), (Threads(2), 10**6)]
    }
    assert len(found) == 1


def test_personal_arrays_and_integers_have_no_control(tmp_path):
    start = mixed_model()
    strategy = Strategy(Scaffold(), stages=(Exclude(("bn",)),))
    rounds = Rounds(tmp_path, strategy, start, num_clients=1)
    update_spec = strategy.update_spec(rounds.spec)
    assert update_spec.names == ("a", "control/a", "control/z", "n", "z")
    assert {update_spec.by_name[f"control/{name}"].dtype for name in "az"} == {"float32", "float16"}
    sent = {name: np.ones(array.shape, array.numpy_dtype) for name, array in update_spec.by_name.items()}
    found = rounds.play([sent])
    assert found["bn"].tobytes() == start["bn"].tobytes()
    assert set(rounds.state) == {"aggregator.c/a", "aggregator.c/z", "num_steps"}
    assert all((rounds.state[f"aggregator.c/{name}"] == 1).all() for name in "az")


def test_a_control_that_overflows_fails_the_round(tmp_path):
    rounds = Rounds(tmp_path, Strategy(Scaffold()), {"w": np.zeros(2)}, num_clients=1)
    sent = {"w": np.zeros(2), "control/w": np.full(2, 1.7e308)}
    rounds.play([sent])
    with pytest.raises(NonFiniteResult, match="'w' of the state 'aggregator.c'"):
        rounds.play([sent])
