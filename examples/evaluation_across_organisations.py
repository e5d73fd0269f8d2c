"""Four hospitals evaluate one model of breast tumours, and nobody learns the result of a single hospital.

    python examples/evaluation_across_organisations.py

The data are the 569 cases of the Wisconsin diagnostic set (Street, Wolberg and Mangasarian 1993), as scikit-learn has
them. A developer has fitted a model to 60 of them. The others lie in four hospitals, of which south sees advanced cases
only. Each counts how the model does on its own cases and sends counts; the metrics that are made of them are compared
with those of all cases together, which here, unlike in life, can be put together.

It starts a server of its own for that, unless it is told of another one with --url and --token.
"""

import argparse
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from federation import add_server_options, developer_of
from sklearn import metrics
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

from fma_connect import Client
from fma_connect.exceptions import Conflict
from fma_connect.pulled import Arrays
from fma_core.evaluation import Question, Statistics, statistics_of

Array = npt.NDArray[np.float64]

NUM_PUBLIC = 60
# Scores are rounded to thousandths and counted in 1000 parts, so that areas under curves are exact.
QUESTION = Question("binary", (0, 1), bins=1000, with_loss=True)
COMPARED = ("num_examples", "accuracy", "recall", "f1", "roc_auc", "average_precision", "loss")


@dataclass(frozen=True)
class Cases:
    """Cases of tumours. inputs: (cases, features). is_malignant: 1 or 0."""

    inputs: Array
    is_malignant: npt.NDArray[np.int64]

    def take(self, which: npt.NDArray[np.int64]) -> "Cases":
        return Cases(self.inputs[which], self.is_malignant[which])


def deal(seed: int) -> tuple[Cases, dict[str, Cases]]:
    """The cases of the developer, and those of each hospital."""
    data = load_breast_cancer()
    everyone = Cases(data.data, 1 - data.target)  # scikit-learn's 1 is benign
    shuffled = np.random.default_rng(seed).permutation(len(data.target))
    public, rest = shuffled[:NUM_PUBLIC], shuffled[NUM_PUBLIC:]
    advanced = rest[np.argsort(-everyone.inputs[rest, 0])[:50]]  # by mean radius
    others = rest[~np.isin(rest, advanced)]
    shares = dict(zip(("north", "east", "west"), np.split(others, (250, 400)), strict=True))
    hospitals = {name: everyone.take(share) for name, share in (shares | {"south": advanced}).items()}
    return everyone.take(public), hospitals


def fit(cases: Cases) -> dict[str, Array]:
    """The weights of a logistic regression, and the scale of its inputs."""
    mean, scale = cases.inputs.mean(axis=0), cases.inputs.std(axis=0)
    model = LogisticRegression(C=0.1).fit((cases.inputs - mean) / scale, cases.is_malignant)
    return {"mean": mean, "scale": scale, "coefficients": model.coef_[0], "offset": model.intercept_}


def scores_of(weights: Arrays, inputs: Array) -> Array:
    """The probability that each case is malignant, rounded to thousandths."""
    standard = (inputs - weights["mean"]) / weights["scale"]
    scores: Array = np.round(1 / (1 + np.exp(-(standard @ weights["coefficients"] + weights["offset"]))), 3)
    return scores


def losses_of(scores: Array, is_malignant: npt.NDArray[np.int64]) -> Array:
    losses: Array = -np.log(np.clip(np.where(is_malignant == 1, scores, 1 - scores), 1e-3, 1))
    return losses


def count(weights: Arrays, question: Question, cases: Cases) -> Statistics:
    """The statistics of a hospital; nothing else leaves it."""
    scores = scores_of(weights, cases.inputs)
    return statistics_of(
        question,
        y_true=cases.is_malignant,
        y_pred=(scores > 0.5).astype(int),
        scores=scores,
        losses=losses_of(scores, cases.is_malignant),
    )


def pooled(weights: Arrays, cases: Cases) -> dict[str, float]:
    """The same metrics, computed by scikit-learn on all cases in one place."""
    truth, scores = cases.is_malignant, scores_of(weights, cases.inputs)
    taken = (scores > 0.5).astype(int)
    return {
        "num_examples": len(truth),
        "accuracy": metrics.accuracy_score(truth, taken),
        "recall": metrics.recall_score(truth, taken),
        "f1": metrics.f1_score(truth, taken),
        "roc_auc": metrics.roc_auc_score(truth, scores),
        "average_precision": metrics.average_precision_score(truth, scores),
        "loss": float(losses_of(scores, truth).mean()),
    }


def main() -> None:
    options = parse_options()
    public, hospitals = deal(options.seed)
    weights = fit(public)
    with developer_of(options) as developer, ExitStack() as stack:
        model = developer.create_model("tumours", allow_aggregation=False)["id"]
        initial = developer.set_initial_model(model, weights)
        clients = {
            name: stack.enter_context(Client(developer.url, model, credential_file=None))
            for name in hospitals
        }
        ids = {name: client.register() for name, client in clients.items()}
        opened = developer.open_evaluation(model, QUESTION, artifact=initial["id"], name="four hospitals")
        own = {}
        for name, client in clients.items():
            (asked,) = client.evaluations()
            cases = hospitals[name]
            sent = client.evaluate(asked, partial(count, cases=cases))
            own[name] = sent["metrics"]
        found = developer.evaluation(opened["id"])["metrics"]
        print(
            f"evaluation {opened['id']}: the developer sees {len(found)} metrics, and of single hospitals",
            end=" ",
        )
        print(developer.evaluation_results(opened["id"]))

        # Three of the four again: the difference would be the fourth one's numbers.
        three = [str(ids[name]) for name in ("north", "east", "west")]
        try:
            developer.open_evaluation(model, QUESTION, artifact=initial["id"], clients=three)
        except Conflict as refused:
            print(f"three of them alone: {refused.code}")

    parts = list(hospitals.values())
    together = Cases(
        np.concatenate([one.inputs for one in parts]), np.concatenate([one.is_malignant for one in parts])
    )
    expected = pooled(weights, together)
    print(f"\n{'metric':<18} {'merged':>12} {'pooled':>12} {'mean of own':>12}")
    for name in COMPARED:
        values = [metrics_[name] for metrics_ in own.values()]
        mean = "none" if None in values else f"{np.mean(values):.6f}"
        print(f"{name:<18} {found[name]:>12.6f} {expected[name]:>12.6f} {mean:>12}")
    furthest = max(abs(found[name] - expected[name]) for name in COMPARED)
    print(f"\nlargest difference between merged and pooled: {furthest:.1e}")
    if furthest > 1e-9:
        raise SystemExit("error: merged metrics are not those of the pooled cases")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Evaluate a model in four hospitals without seeing a case.")
    add_server_options(parser)
    parser.add_argument("--seed", type=int, default=0, help="who has which cases (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
