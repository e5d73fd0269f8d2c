"""The training of the network: minibatch SGD with momentum, the same for a client and for whoever has all the data."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fma_api.cli.demo.digits import Examples
from fma_api.cli.demo.network import Array, Weights, loss_and_gradient


@dataclass(frozen=True)
class Recipe:
    """Chosen without the test set: among 24 combinations, on six seeds, by a fifth of each share held out.

    There it gave a federation at least 0.98 of the accuracy that it gave whoever had all the data.
    """

    epochs_per_round: int = 5
    batch_size: int = 32
    step_size: float = 0.1
    momentum: float = 0.9


RECIPE = Recipe()


def train(
    weights: Weights,
    examples: Examples,
    *,
    num_epochs: int,
    rng: np.random.Generator,
    recipe: Recipe = RECIPE,
) -> tuple[dict[str, Array], float]:
    """New weights after so many passes over the examples, and the mean loss of the last pass.

    The momentum starts at zero: nothing of the optimiser outlives a call, so a client sends weights and nothing else.
    """
    trained = {name: array.copy() for name, array in weights.items()}
    velocity = {name: np.zeros_like(array) for name, array in weights.items()}
    mean_loss = 0.0
    for _ in range(num_epochs):
        losses = []
        for batch in _batches(examples, recipe.batch_size, rng):
            loss, gradient = loss_and_gradient(trained, batch)
            losses.append(loss * len(batch))
            for name, slope in gradient.items():
                velocity[name] *= recipe.momentum
                velocity[name] -= recipe.step_size * slope
                trained[name] += velocity[name]
        mean_loss = sum(losses) / len(examples)
    return trained, mean_loss


def _batches(examples: Examples, size: int, rng: np.random.Generator) -> Iterator[Examples]:
    order = rng.permutation(len(examples))
    for start in range(0, len(order), size):
        yield examples.take(order[start : start + size])
