"""Blocks for contracts: small ones, and ones that refuse calls that a rule has not declared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from numpy.typing import NDArray

from fma_core.aggregation.aggregators import Float64
from fma_core.engine import widths
from fma_core.engine.file_block import FileBlock


class StreamedBlock(FileBlock):
    """A block for rules without `needs_matrix`; it refuses the calls that need the matrix."""

    def matrix(self) -> Float64:
        raise AssertionError("a rule whose `combine` asks for block.matrix() must say needs_matrix = True")

    def sorted_columns(self, rows: Sequence[int] | None = None) -> NDArray[Any]:
        raise AssertionError("a rule whose `combine` asks for sorted columns must say needs_matrix = True")

    def order_statistics(self, ranks: slice = slice(None), rows: Sequence[int] | None = None) -> NDArray[Any]:
        raise AssertionError("a rule whose `combine` asks for order statistics must say needs_matrix = True")


@contextmanager
def small_blocks() -> Iterator[None]:
    """Make the engine cut even a small model into several blocks."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("STREAM_COLUMNS", "MATRIX_VALUES", "GRAM_VALUES"):
            patch.setattr(widths, name, 100)
        yield
