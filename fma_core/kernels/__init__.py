"""The engine's arithmetic: pure functions on arrays, without files and without threads of their own."""

from fma_core.kernels.blas_threads import one_blas_thread
from fma_core.kernels.chosen import add_scaled, add_scaled_rows, load, set_scaled
from fma_core.kernels.gram import add_lower_gram, gram, mirrored
from fma_core.kernels.order_statistics import (
    mean_nearest_median_of_ordered,
    mean_of_ordered,
    median_of_ordered,
    middle_ranks,
    order_statistics,
    padded_matrix,
    padded_size_bytes,
)
from fma_core.kernels.scaled_sum import ScaledSum

__all__ = [
    "ScaledSum",
    "add_lower_gram",
    "add_scaled",
    "add_scaled_rows",
    "gram",
    "load",
    "mean_nearest_median_of_ordered",
    "mean_of_ordered",
    "median_of_ordered",
    "middle_ranks",
    "mirrored",
    "one_blas_thread",
    "order_statistics",
    "padded_matrix",
    "padded_size_bytes",
    "set_scaled",
]
