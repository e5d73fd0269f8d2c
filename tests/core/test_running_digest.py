"""The digest of a file that is being written: of the whole file, in whatever order and by whomever it was written."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from fma_core.engine.running_digest import MIN_BYTES, RunningDigest

SIZE = 5 * MIN_BYTES + 3
PIECE = MIN_BYTES // 2


@pytest.mark.parametrize("order", ["in order", "backwards", "with a gap", "by others"])
def test_the_digest_is_that_of_the_file(tmp_path, order):
    data = np.random.default_rng(0).bytes(SIZE)
    path = tmp_path / "out"
    path.touch()
    digest = RunningDigest(path)
    pieces = [(start, min(start + PIECE, SIZE)) for start in range(0, SIZE, PIECE)]
    with open(path, "r+b", buffering=0) as file:
        for index, (start, stop) in enumerate(reversed(pieces) if order == "backwards" else pieces):
            file.seek(start)
            file.write(data[start:stop])
            if order != "by others" and not (order == "with a gap" and index == 5):
                digest.wrote(start, stop)
    digest.stop()
    assert digest.of_whole_file() == hashlib.sha256(data).hexdigest()


def test_an_empty_piece_changes_nothing(tmp_path):
    path = tmp_path / "out"
    path.write_bytes(b"all of it")
    digest = RunningDigest(path)
    digest.wrote(0, 0)
    digest.wrote(0, 9)
    digest.stop()
    assert digest.of_whole_file() == hashlib.sha256(b"all of it").hexdigest()
