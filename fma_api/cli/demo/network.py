"""The network: a network of one hidden layer, 64-64-10, in numpy, from its first weights to its gradient."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fma_api.cli.demo.digits import NUM_CLASSES, Examples

NUM_PIXELS = 64
NUM_HIDDEN = 64

Array = npt.NDArray[np.floating]
Weights = Mapping[str, Array]


def first_weights(seed: int) -> dict[str, Array]:
    """Random weights, float32. Source: He et al. 2015, arXiv:1502.01852, section 2.2, for ReLU; zero biases."""
    rng = np.random.default_rng(seed)
    return {
        "hidden/weights": _gaussian(rng, NUM_PIXELS, NUM_HIDDEN),
        "hidden/bias": np.zeros(NUM_HIDDEN, np.float32),
        "output/weights": _gaussian(rng, NUM_HIDDEN, NUM_CLASSES),
        "output/bias": np.zeros(NUM_CLASSES, np.float32),
    }


def loss_and_gradient(weights: Weights, examples: Examples) -> tuple[float, dict[str, Array]]:
    """The mean cross-entropy over the examples, and its gradient, in the dtype of the weights."""
    hidden = _hidden(weights, examples)
    log_probabilities = _log_softmax(_scores(weights, hidden))
    each = np.arange(len(examples))
    loss = -float(log_probabilities[each, examples.labels].mean())

    by_scores = np.exp(log_probabilities)
    by_scores[each, examples.labels] -= 1
    by_scores /= len(examples)
    by_hidden = by_scores @ weights["output/weights"].T
    by_hidden[hidden == 0] = 0  # where ReLU is flat
    return loss, {
        "hidden/weights": examples.images.T @ by_hidden,
        "hidden/bias": by_hidden.sum(axis=0),
        "output/weights": hidden.T @ by_scores,
        "output/bias": by_scores.sum(axis=0),
    }


def accuracy(weights: Weights, examples: Examples) -> float:
    """The share of the examples whose most probable class is the right one."""
    guesses = _scores(weights, _hidden(weights, examples)).argmax(axis=1)
    return float((guesses == examples.labels).mean())


def _gaussian(rng: np.random.Generator, fan_in: int, fan_out: int) -> Array:
    weights: Array = (rng.standard_normal((fan_in, fan_out)) * np.sqrt(2 / fan_in)).astype(np.float32)
    return weights


def _hidden(weights: Weights, examples: Examples) -> Array:
    hidden: Array = np.maximum(examples.images @ weights["hidden/weights"] + weights["hidden/bias"], 0)
    return hidden


def _scores(weights: Weights, hidden: Array) -> Array:
    scores: Array = hidden @ weights["output/weights"] + weights["output/bias"]
    return scores


def _log_softmax(scores: Array) -> Array:
    shifted = scores - scores.max(axis=1, keepdims=True)
    logs: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs
