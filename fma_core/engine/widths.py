"""The number of columns in a block, which depends on the rule and the number of rows, never on threads or machines."""

from __future__ import annotations

# Measured (2 cores, 100 × 1M float32): 24K and 32K columns are equally fast; wider blocks are slower where numpy adds.
# The sum, and the rows that wait to be added, then stay in the second-level cache.
STREAM_COLUMNS = 24576
# The number of values in a block of a rule that needs the matrix, and of the Gram matrix. Measured: with fewer columns
# the calls to read them cost more than the reading.
MATRIX_VALUES = 2**20
GRAM_VALUES = 2**20
# The part of such a block that is processed at once, in float64 within the second-level cache.
TILE_VALUES = 2**17
MIN_MATRIX_COLUMNS = 64
# The largest number of partial sums of a measurement over whole rows, wherever the work is done: enough for all threads
# of a cluster, and few enough to send a Gram matrix of 1000 rows (8 MB) for each.
MAX_PARTIAL_SUMS = 128


def matrix_columns(num_rows: int, *, values: int | None = None) -> int:
    """The width of a block that has all its rows in memory at once."""
    values = MATRIX_VALUES if values is None else values
    return min(STREAM_COLUMNS, max(MIN_MATRIX_COLUMNS, values // num_rows))


def tile_columns(num_rows: int) -> int:
    """The width of the part of a block that is processed at once."""
    return max(MIN_MATRIX_COLUMNS, TILE_VALUES // num_rows)
