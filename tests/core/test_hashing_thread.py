"""Hashing beside the work: the hash of hashlib, and an end whatever comes."""

import hashlib

import pytest

from fma_core.arrays.codecs.hashing_thread import WAITING_PIECES, HashingThread


def test_hash_is_that_of_all_pieces() -> None:
    pieces = [bytes([number]) * 1000 for number in range(3 * WAITING_PIECES)]

    with HashingThread() as hashing:
        for piece in pieces:
            hashing.update(piece)
        assert hashing.hexdigest() == hashlib.sha256(b"".join(pieces)).hexdigest()


@pytest.mark.timeout(20)
def test_a_piece_that_cannot_be_hashed_stops_nobody() -> None:
    with_gaps = memoryview(b"abcd")[::2]

    with HashingThread() as hashing:
        for _ in range(2 * WAITING_PIECES):
            hashing.update(with_gaps)
        with pytest.raises(BufferError):
            hashing.hexdigest()
