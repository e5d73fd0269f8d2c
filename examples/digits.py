"""Shares of handwritten digits for clients. The images, the network and its training are those of `fma demo`."""

import numpy as np

from fma_api.cli.demo.digits import NUM_CLASSES, Digits, hold_out


def deal_alike(num_clients: int, *, seed: int) -> Digits:
    """Give every client a random share of the images, with about as many of each digit as the others."""
    rng = np.random.default_rng(seed)
    test, rest = hold_out(rng)
    shares = np.array_split(rng.permutation(len(rest)), num_clients)
    return Digits(test, tuple(rest.take(share) for share in shares))


def deal_by_digit(num_clients: int, *, seed: int) -> Digits:
    """Give every client images of two digits, or of one; with five clients no digit is shared."""
    rng = np.random.default_rng(seed)
    test, rest = hold_out(rng)
    parts_of_each = max(1, 2 * num_clients // NUM_CLASSES)
    parts = [
        part
        for digit in range(NUM_CLASSES)
        for part in np.array_split(np.flatnonzero(rest.labels == digit), parts_of_each)
    ]
    hands = np.array_split(rng.permutation(len(parts)), num_clients)
    shares = [np.sort(np.concatenate([parts[part] for part in hand])) for hand in hands]
    return Digits(test, tuple(rest.take(share) for share in shares))
