"""Training without a federation, to compare with: the same network, first weights, recipe and number of epochs."""

from dataclasses import dataclass

import numpy as np

from fma_api.cli.demo.digits import Digits, Examples
from fma_api.cli.demo.network import accuracy, first_weights
from fma_api.cli.demo.recipe import RECIPE, train


@dataclass(frozen=True)
class Comparison:
    """Accuracies on the test set. centralised: trained on all shares together. single: on each share alone."""

    centralised: float
    single: tuple[float, ...]

    @property
    def best_single(self) -> float:
        return max(self.single)


def compare(digits: Digits, *, num_rounds: int, seed: int) -> Comparison:
    num_epochs = num_rounds * RECIPE.epochs_per_round

    def trained_on(examples: Examples, number: int) -> float:
        # Rounds count from 1, so no client of the federation uses these numbers.
        rng = np.random.default_rng([seed, number, 0])
        weights, _loss = train(first_weights(seed), examples, num_epochs=num_epochs, rng=rng)
        return accuracy(weights, digits.test)

    return Comparison(
        centralised=trained_on(digits.pooled, 0),
        single=tuple(trained_on(share, number) for number, share in enumerate(digits.shares, start=1)),
    )
