"""Three hospitals train one model of breast cancer without sharing patient data. Is it worth it?

    python examples/three_hospitals.py

Real data: 569 tumours, 30 measurements of each, malignant or benign. A cancer centre sees mostly malignant ones, a
screening centre mostly benign ones, a small hospital both, but few. What each learns alone is shaped by whom it sees.
All models are judged on the same patients, whom no hospital has. Prints a table and draws the accuracies by round.

First the hospitals agree on how to scale the measurements, by a round of their own: the weighted mean of their means is
the mean over all patients, exactly, and so is that of the squares. Then they train a logistic regression.

It starts a server of its own for that, unless it is told of another one with --url and --token.
Source of the data: Wolberg, Mangasarian, Street, Street, Breast Cancer Wisconsin (Diagnostic), UCI Machine Learning
Repository, 1993, as bundled with scikit-learn: nothing is downloaded.
"""

import argparse
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from curves import draw
from federation import add_server_options, developer_of, finished_round
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import SGDClassifier

from fma_connect import Client, DeveloperClient
from fma_connect.adapters import sklearn_estimator

Array = npt.NDArray[np.float64]
Weights = Mapping[str, Array]

NUM_MEASUREMENTS = 30
TEST_FRACTION = 0.3
# The share of the malignant tumours that each hospital has, and its share of the benign ones.
HOSPITALS = {
    "cancer centre": (0.80, 0.06),
    "general hospital": (0.12, 0.14),
    "screening centre": (0.08, 0.80),
}
PASSES_PER_ROUND = 2


@dataclass(frozen=True)
class Patients:
    """Patients and their diagnoses. measurements: (patients, 30). is_malignant: (patients,) of 0 and 1."""

    measurements: Array
    is_malignant: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.is_malignant)

    def take(self, chosen: npt.NDArray[np.int64]) -> "Patients":
        return Patients(self.measurements[chosen], self.is_malignant[chosen])

    def scaled(self, scale: Weights) -> "Patients":
        deviation = np.sqrt(scale["mean of squares"] - scale["mean"] ** 2)
        return Patients((self.measurements - scale["mean"]) / deviation, self.is_malignant)


def main() -> None:
    options = parse_options()
    test, hospitals = deal(options.seed)
    curves = {}
    with developer_of(options) as fma:
        scale = federate(fma, "scale", hospitals, lambda patients, _, __: scale_of(patients))[0]
        scaled = {name: patients.scaled(scale) for name, patients in hospitals.items()}
        models = federate(
            fma,
            "diagnosis",
            scaled,
            lambda patients, start, number: trained(start, patients, seed=options.seed + number),
            num_rounds=options.rounds,
            start=nothing_learnt(),
        )
        curves["federation"] = [accuracy(model, test.scaled(scale)) for model in models]
    for name, patients in hospitals.items():
        curves[f"{name}, alone"] = alone(patients, test, num_rounds=options.rounds, seed=options.seed)

    print(f"\n{'':<28}{'patients':>9} {'malignant':>10} {'accuracy':>9}")
    for name, patients in hospitals.items():
        malignant, found = patients.is_malignant.mean(), curves[f"{name}, alone"][-1]
        print(f"{name + ', alone':<28}{len(patients):>9} {malignant:>10.0%} {found:>9.3f}")
    pooled = np.concatenate([patients.is_malignant for patients in hospitals.values()])
    print(f"{'federation':<28}{len(pooled):>9} {pooled.mean():>10.0%} {curves['federation'][-1]:>9.3f}")
    print(f"\njudged on {len(test)} patients of nobody, {test.is_malignant.mean():.0%} of them malignant")
    picture = draw(
        {"": curves}, title="Three hospitals", to=options.out, ylabel="accuracy on patients of nobody"
    )
    print(f"picture: {picture}")


def deal(seed: int) -> tuple[Patients, dict[str, Patients]]:
    """The patients for the test, and those of each hospital."""
    found = load_breast_cancer()
    everybody = Patients(found.data, (found.target == 0).astype(np.int64))
    order = np.random.default_rng(seed).permutation(len(everybody))
    num_test = round(TEST_FRACTION * len(everybody))
    test, rest = everybody.take(order[:num_test]), everybody.take(order[num_test:])
    parts: dict[str, list[npt.NDArray[np.int64]]] = {name: [] for name in HOSPITALS}
    for kind, shares in zip((1, 0), zip(*HOSPITALS.values(), strict=True), strict=True):
        members = np.flatnonzero(rest.is_malignant == kind)
        cuts = np.rint(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        for name, part in zip(HOSPITALS, np.split(members, cuts), strict=True):
            parts[name].append(part)
    return test, {name: rest.take(np.concatenate(part)) for name, part in parts.items()}


def federate(
    fma: DeveloperClient,
    name: str,
    hospitals: Mapping[str, Patients],
    contribute: Callable[[Patients, Weights, int], Weights],
    *,
    num_rounds: int = 1,
    start: Weights | None = None,
) -> list[Weights]:
    """The aggregate of each round; contribute: makes an update of patients, the last aggregate and the round."""
    policy = {"goal": len(hospitals), "num_rounds": num_rounds}
    model = fma.create_model(name, round_policy=policy)["id"]
    if start is not None:
        fma.set_initial_model(model, start)
    aggregates: list[Weights] = []
    with ExitStack() as stack:
        clients = {
            hospital: stack.enter_context(Client(fma.url, model, credential_file=None))
            for hospital in hospitals
        }
        for client in clients.values():
            client.register()
        for number in range(1, num_rounds + 1):
            for hospital, client in clients.items():
                joined, pulled = client.join(timeout_s=60), client.pull()
                assert joined is not None
                given = {} if pulled is None else pulled.arrays
                patients = hospitals[hospital]
                client.push(contribute(patients, given, number), num_examples=len(patients))
            round_ = finished_round(fma, model, number)
            if round_["failure"]:
                raise SystemExit(f"error: round {number} of {name}: {round_['failure']['detail']}")
            newest = client.pull()
            assert newest is not None
            aggregates.append(newest.arrays)
    print(f"{name}: {num_rounds} round(s) of {len(hospitals)} hospitals", flush=True)
    return aggregates


def scale_of(patients: Patients) -> Weights:
    x = patients.measurements
    return {"mean": x.mean(axis=0), "mean of squares": (x**2).mean(axis=0)}


def nothing_learnt() -> Weights:
    return {"coef_": np.zeros((1, NUM_MEASUREMENTS)), "intercept_": np.zeros(1)}


def classifier(weights: Weights, *, seed: int = 0) -> SGDClassifier:
    untrained = SGDClassifier(
        loss="log_loss", learning_rate="constant", eta0=0.01, alpha=1e-3, random_state=seed
    )
    return sklearn_estimator.from_arrays(weights, into=untrained, classes=[0, 1])


def trained(weights: Weights, patients: Patients, *, seed: int) -> Weights:
    """Train some passes over the patients, from these weights on."""
    estimator = classifier(weights, seed=seed)
    for _ in range(PASSES_PER_ROUND):
        estimator.partial_fit(patients.measurements, patients.is_malignant)
    return sklearn_estimator.to_arrays(estimator)


def accuracy(weights: Weights, patients: Patients) -> float:
    return float(classifier(weights).score(patients.measurements, patients.is_malignant))


def alone(patients: Patients, test: Patients, *, num_rounds: int, seed: int) -> list[float]:
    """The accuracies of a hospital alone, with its own scale, after the same training as in each round."""
    scale = scale_of(patients)
    weights, accuracies = nothing_learnt(), []
    for number in range(1, num_rounds + 1):
        weights = trained(weights, patients.scaled(scale), seed=seed + number)
        accuracies.append(accuracy(weights, test.scaled(scale)))
    return accuracies


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Three hospitals train one model of breast cancer.")
    add_server_options(parser)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed gives the same accuracies (%(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("three_hospitals.png"),
        help="where to write the picture (%(default)s)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
