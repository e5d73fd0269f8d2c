"""The parts that the demo computes itself: the division of the digits, the network, the verdict."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the demo needs scikit-learn")

from sklearn.datasets import load_digits

from fma_api.cli.demo import digits, verdict
from fma_api.cli.demo.comparison import Comparison, compare
from fma_api.cli.demo.digits import (
    BRIGHTEST_PIXEL,
    FEWEST_EXAMPLES,
    Digits,
    Examples,
    divide,
    owners_by_class,
)
from fma_api.cli.demo.federation import Plan
from fma_api.cli.demo.network import accuracy, first_weights, loss_and_gradient
from fma_api.cli.demo.recipe import train
from fma_api.cli.problem import Problem

NUM_DIGITS = 1797


def rows(*parts: Examples) -> Counter[bytes]:
    """Every image with its label, as often as it occurs."""
    return Counter(
        image.tobytes() + label.tobytes()
        for part in parts
        for image, label in zip(part.images, part.labels, strict=True)
    )


def random_examples(count: int, seed: int = 0) -> Examples:
    rng = np.random.default_rng(seed)
    return Examples(rng.random((count, 64), np.float32), rng.integers(0, 10, count))


class TestDivision:
    def test_the_digits_are_those_that_scikit_learn_loads(self) -> None:
        expected, everything = load_digits(), digits._read()
        np.testing.assert_array_equal(everything.images * BRIGHTEST_PIXEL, expected.data)
        np.testing.assert_array_equal(everything.labels, expected.target)

    @pytest.mark.parametrize("seed", [0, 1, 2])
    @pytest.mark.parametrize("num_clients", [2, 5, 50])
    def test_every_example_has_one_place(self, num_clients: int, seed: int) -> None:
        divided = divide(num_clients=num_clients, seed=seed)
        assert len(divided.shares) == num_clients
        assert rows(divided.test, *divided.shares) == rows(digits._read())

    def test_a_fifth_is_held_out_and_all_digits_are_in_it(self) -> None:
        test = divide(num_clients=5, seed=0).test
        assert len(test) == round(NUM_DIGITS / 5)
        assert test.count_by_class().min() > 0

    @pytest.mark.parametrize("seed", range(10))
    def test_nobody_is_left_without_examples(self, seed: int) -> None:
        assert min(len(share) for share in divide(num_clients=50, seed=seed).shares) >= FEWEST_EXAMPLES

    def test_too_many_clients_are_refused(self) -> None:
        with pytest.raises(ValueError, match="99 examples are not enough for 10 clients"):
            owners_by_class(np.zeros(99, np.int64), num_clients=10, rng=np.random.default_rng(0))

    def test_the_same_seed_divides_the_same_way(self) -> None:
        first, second = divide(num_clients=5, seed=3), divide(num_clients=5, seed=3)
        for one, other in zip((first.test, *first.shares), (second.test, *second.shares), strict=True):
            np.testing.assert_array_equal(one.images, other.images)
            np.testing.assert_array_equal(one.labels, other.labels)

    def test_another_seed_divides_another_way(self) -> None:
        assert rows(divide(num_clients=5, seed=3).test) != rows(divide(num_clients=5, seed=4).test)

    def test_shares_are_skewed(self) -> None:
        # With equal shares the largest part of a class that one of five clients holds would be a fifth.
        counts = np.array([share.count_by_class() for share in divide(num_clients=5, seed=0).shares])
        assert (counts.max(axis=0) / counts.sum(axis=0)).mean() > 0.5

    def test_pixels_are_scaled_by_their_known_range(self) -> None:
        images = divide(num_clients=2, seed=0).pooled.images
        assert images.dtype == np.float32
        assert (images.min(), images.max()) == (0.0, 1.0)

    def test_a_share_survives_its_file(self, tmp_path: Any) -> None:
        share = random_examples(7)
        share.save(tmp_path / "share.npz")
        assert rows(Examples.load(tmp_path / "share.npz")) == rows(share)


class TestNetwork:
    def test_the_gradient_is_that_of_finite_differences(self) -> None:
        examples = random_examples(6)
        examples = Examples(examples.images.astype(np.float64), examples.labels)
        weights = {name: array.astype(np.float64) for name, array in first_weights(1).items()}
        _loss, gradient = loss_and_gradient(weights, examples)
        rng = np.random.default_rng(2)
        step = 1e-6
        for name, array in weights.items():
            for place in rng.choice(array.size, min(array.size, 40), replace=False):
                index = np.unravel_index(place, array.shape)
                here = array[index]
                array[index] = here + step
                above, _ = loss_and_gradient(weights, examples)
                array[index] = here - step
                below, _ = loss_and_gradient(weights, examples)
                array[index] = here
                expected = (above - below) / (2 * step)
                assert gradient[name][index] == pytest.approx(expected, rel=1e-5, abs=1e-9), (name, index)

    def test_without_weights_every_class_is_as_probable(self) -> None:
        weights = {name: np.zeros_like(array) for name, array in first_weights(0).items()}
        loss, _gradient = loss_and_gradient(weights, random_examples(5))
        assert loss == pytest.approx(np.log(10))

    def test_large_scores_do_not_overflow(self) -> None:
        weights = {name: array * np.float32(1e4) for name, array in first_weights(0).items()}
        loss, gradient = loss_and_gradient(weights, random_examples(5))
        assert np.isfinite(loss)
        assert all(np.isfinite(slope).all() for slope in gradient.values())

    def test_accuracy_is_the_share_of_right_answers(self) -> None:
        weights = {name: np.zeros_like(array) for name, array in first_weights(0).items()}
        weights["output/bias"][3] = 1
        examples = random_examples(20)
        assert accuracy(weights, examples) == (examples.labels == 3).mean()

    def test_training_repeats_to_the_bit_and_leaves_its_start_alone(self) -> None:
        start, examples = first_weights(0), random_examples(50)
        first, first_loss = train(start, examples, num_epochs=2, rng=np.random.default_rng(1))
        second, second_loss = train(start, examples, num_epochs=2, rng=np.random.default_rng(1))
        assert first_loss == second_loss
        for name, array in first_weights(0).items():
            assert start[name].tobytes() == array.tobytes()
            assert first[name].tobytes() == second[name].tobytes() != array.tobytes()
            assert first[name].dtype == np.float32

    def test_training_on_all_data_learns_the_digits(self) -> None:
        divided = divide(num_clients=2, seed=0)
        assert compare(Digits(divided.test, (divided.pooled,)), num_rounds=4, seed=0).centralised > 0.93


class Record:
    """The answers of the API after a run without faults, for a test to spoil."""

    def __init__(self, plan: Plan) -> None:
        numbers = range(1, plan.num_rounds + 1)
        self.kept_rounds = [{"number": number, "state": "published"} for number in numbers]
        self.kept_rounds.append({"number": plan.num_rounds + 1, "state": "collecting"})
        self.kept_updates = [
            {"id": 100 * number + client, "client": client, "status": 2}
            for number in numbers
            for client in range(plan.num_clients)
        ]

    def rounds(self, model: int) -> list[dict[str, Any]]:
        return self.kept_rounds

    def updates(self, model: int) -> list[dict[str, Any]]:
        return self.kept_updates


class TestVerdict:
    plan = Plan(num_clients=2, num_rounds=3, seed=0)

    @pytest.fixture
    def record(self) -> Record:
        return Record(self.plan)

    def judge(self, record: Record) -> None:
        verdict.require_complete_record(record, 1, self.plan)  # type: ignore[arg-type]

    def test_a_complete_record_is_accepted(self, record: Record) -> None:
        self.judge(record)

    def test_a_round_without_an_aggregate_is_seen(self, record: Record) -> None:
        record.kept_rounds[2]["state"] = "aggregating"
        with pytest.raises(Problem, match=r"rounds 1 to 3 were to be published; published were \[1, 2\]"):
            self.judge(record)

    def test_a_failed_round_is_seen(self, record: Record) -> None:
        record.kept_rounds[3]["state"] = "failed"
        with pytest.raises(Problem, match=r"rounds \[4\] failed"):
            self.judge(record)

    @pytest.mark.parametrize("status", [0, 1, 3, 4])
    def test_an_update_that_was_not_aggregated_is_seen(self, record: Record, status: int) -> None:
        record.kept_updates[2]["status"] = status
        with pytest.raises(Problem, match=r"updates \[200\] were accepted and never aggregated"):
            self.judge(record)

    def test_an_update_that_is_missing_is_seen(self, record: Record) -> None:
        del record.kept_updates[0]
        with pytest.raises(Problem, match="6 updates were sent; the server has 5"):
            self.judge(record)

    def test_an_update_in_the_name_of_another_client_is_seen(self, record: Record) -> None:
        record.kept_updates[0]["client"] = 1
        with pytest.raises(Problem, match="each of 2 clients was to send 3 updates"):
            self.judge(record)

    def test_too_low_an_accuracy_is_seen(self) -> None:
        without = Comparison(centralised=0.98, single=(0.5, 0.7))
        verdict.require_accuracy(0.95 * 0.98, without)
        with pytest.raises(Problem, match=r"federated accuracy is 0\.930, under 95% of the 0\.980"):
            verdict.require_accuracy(0.930, without)
