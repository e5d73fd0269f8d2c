"""The data: 1797 handwritten digits, some held out for the test, the rest divided unevenly among the clients.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998, as
bundled with scikit-learn: nothing is downloaded.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

NUM_CLASSES = 10
BRIGHTEST_PIXEL = 16
TEST_FRACTION = 0.2
CONCENTRATION = (
    0.3  # of the Dirichlet distribution: small is skewed, most of a class goes to one or two clients
)
FEWEST_EXAMPLES = 10


@dataclass(frozen=True)
class Examples:
    """images: (examples, 64) float32 in [0, 1]; labels: (examples,) int64."""

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: npt.NDArray[np.int64]) -> "Examples":
        return Examples(self.images[chosen], self.labels[chosen])

    def count_by_class(self) -> npt.NDArray[np.int64]:
        return np.bincount(self.labels, minlength=NUM_CLASSES)

    def save(self, path: Path) -> None:
        np.savez(path, images=self.images, labels=self.labels)

    @classmethod
    def load(cls, path: Path) -> "Examples":
        with np.load(path, allow_pickle=False) as arrays:
            return cls(arrays["images"], arrays["labels"])


@dataclass(frozen=True)
class Digits:
    """test: seen by no client. shares: one for each client, together the rest, nothing twice."""

    test: Examples
    shares: tuple[Examples, ...]

    @property
    def pooled(self) -> Examples:
        """All shares in one place, which nobody has in a federation."""
        return Examples(
            np.concatenate([share.images for share in self.shares]),
            np.concatenate([share.labels for share in self.shares]),
        )


def divide(*, num_clients: int, seed: int) -> Digits:
    """The digits, divided for these clients; the same for the same seed."""
    rng = np.random.default_rng(seed)
    test, rest = hold_out(rng)
    owners = owners_by_class(rest.labels, num_clients=num_clients, rng=rng)
    return Digits(test, tuple(rest.take(np.flatnonzero(owners == client)) for client in range(num_clients)))


def hold_out(rng: np.random.Generator) -> tuple[Examples, Examples]:
    """All digits: those for the test, and the rest."""
    everything = _read()
    order = rng.permutation(len(everything))
    num_test = round(TEST_FRACTION * len(everything))
    return everything.take(order[:num_test]), everything.take(order[num_test:])


def owners_by_class(
    labels: npt.NDArray[np.int64], *, num_clients: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """The client that each example belongs to: every class is divided in proportions drawn from a Dirichlet.

    A client that would have fewer than FEWEST_EXAMPLES gets what is missing, one by one, from whoever has most.
    Source: Hsu, Qi, Brown 2019, arXiv:1909.06335, in the variant that draws the clients of each class.
    """
    if len(labels) < num_clients * FEWEST_EXAMPLES:
        raise ValueError(
            f"{len(labels)} examples are not enough for {num_clients} clients with {FEWEST_EXAMPLES} or more each"
        )
    owners = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        proportions = rng.dirichlet(np.full(num_clients, CONCENTRATION))
        cuts = np.rint(np.cumsum(proportions)[:-1] * len(members)).astype(np.int64)
        for client, part in enumerate(np.split(members, cuts)):
            owners[part] = client
    while (counts := np.bincount(owners, minlength=num_clients)).min() < FEWEST_EXAMPLES:
        owners[rng.choice(np.flatnonzero(owners == counts.argmax()))] = counts.argmin()
    return owners


def _read() -> Examples:
    # The file is read as it lies in scikit-learn: importing that for its load_digits takes two seconds.
    found = find_spec("sklearn")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("the digits come with scikit-learn, which is not installed", name="sklearn")
    table = np.loadtxt(Path(found.origin).with_name("datasets") / "data" / "digits.csv.gz", delimiter=",")
    # The range of a pixel is known before anybody has seen data. Means and deviations are not: in a federation they
    # would have to be computed from what the clients keep to themselves.
    images = (table[:, :-1] / BRIGHTEST_PIXEL).astype(np.float32)
    return Examples(images, table[:, -1].astype(np.int64))
