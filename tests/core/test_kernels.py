"""The engine's kernels: the compiled ones equal numpy's bit by bit, and numpy's equal what is written down plainly."""

from __future__ import annotations

import math
import subprocess
import sys
import threading

import numpy as np
import pytest
import threadpoolctl
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fma_core import kernels
from fma_core.arrays.dtypes import FLOATS, ITEM_SIZES, NUMPY_DTYPES
from fma_core.kernels import chosen, scaled_rows
from fma_core.kernels.sorting_network import comparators

ALL_FLOATS = sorted(FLOATS)
SORTABLE = ["float32", "float64"]
WEIGHTS = st.one_of(
    st.just(1.0),
    st.integers(0, 2**53).map(float),
    st.floats(allow_nan=False, allow_infinity=False),
)


@pytest.fixture(params=["numpy", "numba"], scope="module")
def implementation(request):
    if request.param == "numpy":
        return scaled_rows
    pytest.importorskip("numba")
    from fma_core.kernels import compiled

    return compiled


def test_what_is_loaded_before_processes_are_forked_is_what_the_first_fold_of_float32_calls():
    compiled = pytest.importorskip("fma_core.kernels.compiled")
    code = (
        "from fma_core import kernels; kernels.load(); from fma_core.kernels import compiled;"
        "print(len(compiled._set.signatures), len(compiled._add_rows.signatures))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == ["1", "1"]
    assert chosen.implementation() is compiled


@st.composite
def rows_of(draw, dtype, max_rows=10):
    """Rows of any bits at all: denormal numbers, infinities, both zeros, and what is not a number."""
    shape = (draw(st.integers(1, max_rows)), draw(st.integers(1, 20)))
    size = shape[0] * shape[1]
    bits = draw(arrays(f"uint{8 * ITEM_SIZES[dtype]}", size))
    # Runs of ordinary numbers and of zeros: any bits are ordinary too seldom.
    ordinary = draw(arrays("int8", size)).astype(NUMPY_DTYPES[dtype])
    zeros = np.copysign(np.zeros(size), draw(arrays("int8", size))).astype(NUMPY_DTYPES[dtype])
    kind = draw(arrays("uint8", size, elements=st.integers(0, 2)))
    values = np.choose(kind, [bits, ordinary.view(bits.dtype), zeros.view(bits.dtype)])
    return values.view(NUMPY_DTYPES[dtype]).reshape(shape)


def bits_of(values):
    """Float64 bits, one for all that is not a number."""
    return np.where(np.isnan(values), np.nan, values).astype(np.float64).view(np.uint64).tolist()


def plain_sum(rows, weights):
    with np.errstate(all="ignore"):
        total = [np.float64(weights[0]) * np.float64(value) for value in rows[0]]
        for row, weight in zip(rows[1:], weights[1:], strict=True):
            total = [
                have + np.float64(weight) * np.float64(value) for have, value in zip(total, row, strict=True)
            ]
    return np.array(total)


@pytest.mark.parametrize("dtype", ALL_FLOATS)
@given(data=st.data())
def test_a_scaled_sum_is_products_then_sums_in_float64_bit_by_bit(implementation, dtype, data):
    rows = data.draw(rows_of(dtype))
    weights = data.draw(st.lists(WEIGHTS, min_size=len(rows), max_size=len(rows)))
    total, grouped, scratch = np.empty((3, rows.shape[1]))
    with np.errstate(all="ignore"):
        implementation.set_scaled(total, rows[0], weights[0])
        grouped[:] = total
        for row, weight in zip(rows[1:], weights[1:], strict=True):
            implementation.add_scaled(total, row, weight, scratch)
        implementation.add_scaled_rows(grouped, rows[1:], np.array(weights[1:]), scratch)
    assert bits_of(total) == bits_of(grouped) == bits_of(plain_sum(rows, weights))


@pytest.mark.parametrize("dtype", ALL_FLOATS)
@pytest.mark.parametrize("num_rows", [0, 1, 4, 5, 10])
def test_a_sum_of_rows_that_come_one_at_a_time_has_the_same_bits(
    implementation, num_rows, dtype, monkeypatch
):
    monkeypatch.setattr("fma_core.kernels.scaled_sum.implementation", lambda: implementation)
    rng = np.random.default_rng(num_rows)
    rows = rng.standard_normal((num_rows, 37)).astype(NUMPY_DTYPES[dtype])
    weights = rng.random(num_rows).tolist()
    buffer = np.empty(kernels.ScaledSum.size_bytes(37, rows.dtype), np.uint8)
    running = kernels.ScaledSum(37, rows.dtype, buffer)
    for row, weight in zip(rows, weights, strict=True):
        running.room[:] = row
        running.add(weight)
    total = running.total()
    assert not np.shares_memory(total, buffer)
    assert total.tolist() == (plain_sum(rows, weights).tolist() if num_rows else [0.0] * 37)


@pytest.mark.parametrize("dtype", ALL_FLOATS)
def test_both_implementations_give_the_same_bits_for_wide_rows(dtype):
    compiled = pytest.importorskip("fma_core.kernels.compiled")
    rng = np.random.default_rng(5)
    rows = (rng.standard_normal((9, 5003)) * 10.0 ** rng.integers(-4, 4, (9, 5003))).astype(
        NUMPY_DTYPES[dtype]
    )
    weights = rng.random(9)
    totals = np.zeros((2, 5003))
    for total, module in zip(totals, (scaled_rows, compiled), strict=True):
        module.add_scaled_rows(total, rows, weights, np.empty(5003))
    assert totals[0].tobytes() == totals[1].tobytes()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_small_float_is_widened_exactly(implementation, dtype):
    values = np.arange(2**16, dtype=np.uint16).view(NUMPY_DTYPES[dtype])
    total = np.empty(values.size)
    with np.errstate(invalid="ignore"):
        implementation.set_scaled(total, values, 1.0)
        assert bits_of(total) == bits_of(values.astype(np.float64))


def test_rows_with_gaps_between_them_are_added_too(implementation):
    rows = np.arange(12.0, dtype=np.float32).reshape(3, 4)[:, :3]
    total = np.zeros(3)
    implementation.add_scaled_rows(total, rows, np.array([1.0, 10.0, 100.0]), np.empty(3))
    assert total.tolist() == [840.0, 951.0, 1062.0]


def test_the_compiled_kernels_are_chosen_where_numba_is_installed():
    compiled = pytest.importorskip("fma_core.kernels.compiled")
    assert chosen.implementation() is compiled


def test_numpy_is_chosen_where_numba_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "fma_core.kernels.compiled", raising=False)
    monkeypatch.delattr("fma_core.kernels.compiled", raising=False)
    assert chosen.implementation.__wrapped__() is scaled_rows


def test_numba_is_not_imported_before_the_first_fold():
    code = "import sys, fma_core.engine; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_kernels_compile_where_no_folder_for_a_cache_is_writable(monkeypatch):
    caching = pytest.importorskip("numba.core.caching")
    from fma_core.kernels import compiled

    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    total = np.zeros(3)
    compiled._compiled(compiled._add_scaled)(total, np.ones(3, np.float32), 2.0)
    assert total.tolist() == [2.0, 2.0, 2.0]


@st.composite
def matrices(draw, dtype, min_rows=1):
    shape = (draw(st.integers(min_rows, 12)), draw(st.integers(1, 9)))
    limit = float(np.finfo(dtype).max) / 16
    few = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 1.0, 3.0])
    width = 8 * np.dtype(dtype).itemsize
    return draw(arrays(dtype, shape, elements=few | st.floats(-limit, limit, width=width)))


@pytest.fixture(scope="module")
def sorting(implementation):
    """Sort by numpy, then by the compiled network."""
    with pytest.MonkeyPatch.context() as patch:
        # By its module: the package gives a function of the same name.
        patch.setattr(
            sys.modules["fma_core.kernels.order_statistics"], "implementation", lambda: implementation
        )
        yield


def sorted_by_kernel(matrix, ranks=slice(None)):
    copy = kernels.padded_matrix(*matrix.shape, matrix.dtype)  # type: ignore[call-arg]
    copy[:] = matrix
    return kernels.order_statistics(copy, ranks)


def test_rows_of_whole_pages_are_set_apart_and_sorted(sorting):
    matrix = np.random.default_rng(4).standard_normal((5, 1024)).astype(np.float32)
    padded = kernels.padded_matrix(5, 1024, np.float32)
    padded[:] = matrix
    assert padded.strides == (4096 + 64, 4)
    assert kernels.order_statistics(padded).tolist() == np.sort(matrix, axis=0).tolist()


def nearest(column, count):
    median = float(np.median(column.astype(np.float64)))
    # Rounding may give two values on the same side the same distance; the one between is the nearer all the same.
    return sorted(
        column.tolist(),
        key=lambda value: (abs(value - median), value > median, value if value > median else -value),
    )[:count]


def statistics_of(matrix):
    ordered = sorted_by_kernel(matrix)
    trim = (matrix.shape[0] - 1) // 2
    return [
        kernels.median_of_ordered(ordered),
        kernels.mean_of_ordered(ordered),
        kernels.mean_nearest_median_of_ordered(ordered, matrix.shape[0] - trim),
    ]


@pytest.mark.parametrize("dtype", SORTABLE)
@given(data=st.data())
def test_columns_are_sorted(sorting, dtype, data):
    matrix = data.draw(matrices(dtype))
    first, last = sorted([data.draw(st.integers(0, len(matrix))), data.draw(st.integers(0, len(matrix)))])
    expected = np.array([sorted(column) for column in matrix.T.tolist()]).T
    assert sorted_by_kernel(matrix).tolist() == expected.tolist()
    assert sorted_by_kernel(matrix, slice(first, last)).tolist() == expected[first:last].tolist()


@pytest.mark.parametrize("dtype", SORTABLE)
@given(data=st.data())
def test_median_is_that_of_numpy(sorting, dtype, data):
    matrix = data.draw(matrices(dtype))
    expected = np.median(matrix.astype(np.float64), axis=0)
    assert kernels.median_of_ordered(sorted_by_kernel(matrix)).tolist() == expected.tolist()
    middle = sorted_by_kernel(matrix, kernels.middle_ranks(len(matrix)))
    assert kernels.median_of_ordered(middle).tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", SORTABLE)
@given(data=st.data())
def test_trimmed_mean_is_the_mean_of_what_is_left(sorting, dtype, data):
    matrix = data.draw(matrices(dtype))
    trim = data.draw(st.integers(0, (len(matrix) - 1) // 2))
    means = kernels.mean_of_ordered(sorted_by_kernel(matrix, slice(trim, len(matrix) - trim)))
    for mean, column in zip(means, matrix.T.tolist(), strict=True):
        kept = sorted(column)[trim : len(column) - trim]
        assert mean == pytest.approx(math.fsum(kept) / len(kept), rel=1e-15, abs=1e-14 * max(map(abs, kept)))


@pytest.mark.parametrize("dtype", SORTABLE)
@given(data=st.data())
def test_mean_nearest_the_median_takes_the_nearest_and_of_two_the_lower(sorting, dtype, data):
    matrix = data.draw(matrices(dtype))
    count = data.draw(st.integers(1, len(matrix)))
    means = kernels.mean_nearest_median_of_ordered(sorted_by_kernel(matrix), count)
    for mean, column in zip(means, matrix.T, strict=True):
        kept = nearest(column, count)
        assert mean == pytest.approx(math.fsum(kept) / count, rel=1e-15, abs=1e-14 * max(map(abs, kept)))


@pytest.mark.parametrize("dtype", SORTABLE)
@given(data=st.data())
def test_order_statistics_have_the_same_bits_in_any_order_and_any_cut(sorting, dtype, data):
    matrix = data.draw(matrices(dtype))
    order = data.draw(st.permutations(range(len(matrix))))
    cut = data.draw(st.integers(0, matrix.shape[1]))
    parts = [statistics_of(part[order]) for part in (matrix[:, :cut], matrix[:, cut:])]
    for whole, left, right in zip(statistics_of(matrix), *parts, strict=True):
        assert whole.tobytes() == np.concatenate([left, right]).tobytes()


def test_the_median_of_enormous_and_of_denormal_values_neither_overflows_nor_vanishes():
    largest, least = np.finfo(np.float64).max, 5e-324
    matrix = np.array([[largest, -largest, least, largest], [largest, largest, 3 * least, -1.0]])
    assert kernels.median_of_ordered(sorted_by_kernel(matrix)).tolist() == [
        largest,
        0.0,
        2 * least,
        largest / 2,
    ]


def test_more_columns_than_a_tile_are_told_apart():
    matrix = np.random.default_rng(1).standard_normal((10, 1000))
    ordered = np.sort(matrix, axis=0)
    means = kernels.mean_of_ordered(sorted_by_kernel(matrix, slice(2, 8)))
    np.testing.assert_allclose(means, ordered[2:8].mean(axis=0), rtol=1e-14)


def test_gram_is_the_matrix_of_inner_products():
    matrix = np.random.default_rng(2).standard_normal((7, 300))
    product = kernels.gram(matrix)
    expected = [[math.fsum(a * b) for b in matrix] for a in matrix]
    np.testing.assert_allclose(product, expected, rtol=1e-12, atol=1e-12)
    assert (product == product.T).all()


@pytest.mark.parametrize("num_rows", [*range(1, 20), 33, 64, 65])
def test_comparators_sort_every_column_of_zeros_and_ones(num_rows):
    # What sorts all zeros and ones sorts everything; of many rows only some are tried.
    rng = np.random.default_rng(num_rows)
    if num_rows <= 12:
        matrix = (np.arange(2**num_rows) >> np.arange(num_rows)[:, None]) & 1
    else:
        matrix = (rng.random((num_rows, 5000)) < rng.random(5000)).astype(np.int64)
    expected = np.sort(matrix, axis=0)
    for low, high in comparators(num_rows):
        assert low < high
        matrix[low], matrix[high] = (
            np.minimum(matrix[low], matrix[high]),
            np.maximum(matrix[low], matrix[high]),
        )
    assert (matrix == expected).all()


def test_comparators_of_some_ranks_are_fewer_and_enough():
    rng = np.random.default_rng(5)
    assert len(comparators(100, 49, 51)) < len(comparators(100))
    matrix = rng.random((100, 500))
    expected = np.sort(matrix, axis=0)[49:51]
    for low, high in comparators(100, 49, 51):
        matrix[[low, high]] = np.sort(matrix[[low, high]], axis=0)
    assert (matrix[49:51] == expected).all()


@pytest.mark.parametrize("dtype", SORTABLE)
def test_infinities_and_what_is_not_a_number_are_sorted_as_numpy_has_it(sorting, dtype):
    matrix = np.array([[np.inf, -np.nan, 1], [-np.inf, 2, np.nan], [0, np.inf, -np.inf]], dtype)
    np.testing.assert_array_equal(sorted_by_kernel(matrix), np.sort(matrix, axis=0))


def blas_threads():
    """The numbers of threads of numpy's own BLAS, the engine's; libraries that other tests import may bring more."""
    return {
        pool["num_threads"]
        for pool in threadpoolctl.threadpool_info()
        if pool["user_api"] == "blas" and "numpy" in pool["filepath"]
    }


def test_blas_has_one_thread_until_the_last_of_two_folds_is_done():
    before = blas_threads()
    inside, go_on = threading.Event(), threading.Event()

    def other_fold():
        with kernels.one_blas_thread():
            inside.set()
            go_on.wait(10)

    other = threading.Thread(target=other_fold)
    with kernels.one_blas_thread():
        other.start()
        assert inside.wait(10)
        assert blas_threads() == {1}
    assert blas_threads() == {1}
    go_on.set()
    other.join()
    assert blas_threads() == before
