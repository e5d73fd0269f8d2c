"""The fold against oracles: np.average in float64, exact fractions, and the laws that any mean obeys."""

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fma_core.aggregation.aggregators import AvgValuesIfData, FedExLora, FedNova, Mean, Scaffold, aggregators
from fma_core.aggregation.optimisers.sgd import FedAvgM, Sgd
from fma_core.aggregation.strategy import Strategy
from fma_core.arrays.casting import cast
from fma_core.arrays.codecs.safetensors import decode, encode
from fma_core.arrays.dtypes import FLOATS, NUMPY_DTYPES
from fma_core.arrays.policies import ArrayPolicies
from fma_core.arrays.spec import Spec
from fma_core.engine import Serial, Threads, UpdateFile, fold
from fma_core.errors import NegativeVariance, NonFiniteResult, NoUpdates
from fma_core.in_memory import ArrayRounds, StoredRound, Update, fold_arrays
from tests.core.weights import array_of, arrays, fold_bytes, store

INTEGERS = sorted(set(NUMPY_DTYPES) - FLOATS)


@st.composite
def rounds(draw, dtypes=tuple(NUMPY_DTYPES), max_updates=6):
    """Updates of one spec, and their numbers of examples."""
    first = draw(arrays(dtypes))
    count = draw(st.integers(1, max_updates))
    others = (
        {name: draw(array_of(a.dtype.name, a.shape)) for name, a in first.items()} for _ in range(count - 1)
    )
    rows = [first, *others]
    return rows, draw(st.lists(st.integers(1, 10**6), min_size=count, max_size=count))


def folded(rows, num_examples, folder, aggregator=None, **options):
    return fold_bytes(
        store(folder, rows, num_examples), Spec.of(rows[0]), aggregator or Mean(), folder, **options
    )


def normal_rows(count, dtype, seed=0, size=997):
    rng = np.random.default_rng(seed)
    return [{"w": rng.normal(size=size).astype(NUMPY_DTYPES[dtype])} for _ in range(count)]


@pytest.mark.parametrize("dtype", sorted(FLOATS))
def test_mean_is_np_average_bit_for_bit(dtype, tmp_path):
    rows, num_examples = normal_rows(9, dtype), [3, 1, 4, 1, 5, 9, 2, 6, 5]
    stack = np.stack([row["w"] for row in rows]).astype(np.float64)
    found = decode(folded(rows, num_examples, tmp_path))["w"]
    assert found.tobytes() == cast(np.average(stack, axis=0, weights=num_examples), dtype).tobytes()


@pytest.mark.parametrize("dtype", sorted(FLOATS))
@pytest.mark.parametrize("name", ["avg_values_if_data", "average_layers"])
def test_uniform_means_are_np_mean_bit_for_bit(dtype, name, tmp_path):
    rows = normal_rows(9, dtype)
    stack = np.stack([row["w"] for row in rows]).astype(np.float64)
    found = decode(folded(rows, [7] * 8 + [10**6], tmp_path, aggregators.build(name)))["w"]
    assert found.tobytes() == cast(np.mean(stack, axis=0), dtype).tobytes()


def half_even(numerator: int, denominator: int) -> int:
    return round(Fraction(numerator, denominator))


@settings(max_examples=60)
@given(round_=rounds(INTEGERS), huge=st.booleans())
def test_integers_are_averaged_exactly(round_, huge, tmp_path_factory):
    rows, num_examples = round_
    if huge:  # beyond the total weight of the 64-bit way
        num_examples = [n * 2**40 + i for i, n in enumerate(num_examples)]
    for aggregator, weights in ((Mean(), num_examples), (AvgValuesIfData(), [1] * len(rows))):
        found = decode(folded(rows, num_examples, tmp_path_factory.mktemp("f"), aggregator))
        for name, array in found.items():
            columns = zip(*(row[name].reshape(-1).tolist() for row in rows), strict=True)
            expected = [
                half_even(sum(w * int(v) for w, v in zip(weights, c, strict=True)), sum(weights))
                for c in columns
            ]
            assert array.reshape(-1).astype(object).tolist() == expected


@pytest.mark.parametrize(
    ("dtype", "values", "mean"),
    [
        ("int64", [2**63 - 1, 2**63 - 1], 2**63 - 1),
        ("int64", [-(2**63), -(2**63)], -(2**63)),
        ("int64", [-(2**63), 2**63 - 1], 0),  # -0.5 to even
        ("uint64", [2**64 - 1, 2**64 - 1, 2**64 - 2], 2**64 - 1),
        ("int8", [1, 2], 2),
        ("int8", [2, 3], 2),
        ("int8", [-1, -2], -2),
        ("uint8", [255, 254], 254),
        ("bool", [True, False], False),
        ("bool", [True, True, False], True),
    ],
)
def test_integers_are_rounded_half_to_even(dtype, values, mean, tmp_path):
    rows = [{"n": np.array(value, NUMPY_DTYPES[dtype])} for value in values]
    assert decode(folded(rows, [1] * len(rows), tmp_path))["n"] == mean


@given(weights=arrays(), num_examples=st.integers(1, 2**62))
def test_a_single_update_comes_out_exactly(weights, num_examples, tmp_path_factory):
    for aggregator in (Mean(), AvgValuesIfData()):
        assert folded([weights], [num_examples], tmp_path_factory.mktemp("f"), aggregator) == encode(weights)


@given(weights=arrays(sorted(set(NUMPY_DTYPES) - {"float64"})), count=st.integers(2, 5))
def test_equal_updates_come_out_as_they_are(weights, count, tmp_path_factory):
    # Not float64: a sum of three of its largest or smallest numbers is not three times the number.
    found = decode(folded([weights] * count, [3] * count, tmp_path_factory.mktemp("f")))
    assert all(np.array_equal(found[name], weights[name]) for name in weights)


@settings(max_examples=30)
@given(round_=rounds(sorted(set(NUMPY_DTYPES) - {"float64"})), factor=st.integers(1, 10**9))
def test_weights_that_scale_together_change_no_bit(round_, factor, tmp_path_factory):
    rows, num_examples = round_
    folder = tmp_path_factory.mktemp("f")
    assert folded(rows, num_examples, folder) == folded(rows, [n * factor for n in num_examples], folder)


@settings(max_examples=30)
@given(
    round_=rounds(sorted(set(NUMPY_DTYPES) - {"float64"})),
    threads=st.integers(2, 5),
    width=st.integers(1, 40),
)
def test_threads_and_width_of_blocks_change_no_bit(round_, threads, width, tmp_path_factory):
    rows, num_examples = round_
    folder = tmp_path_factory.mktemp("f")
    plain = folded(rows, num_examples, folder, threads=1)
    assert folded(rows, num_examples, folder, threads=threads, block_columns=width) == plain
    assert folded(rows, num_examples, folder) == plain


def test_many_blocks_in_many_threads_give_the_same_bits(tmp_path):
    rng = np.random.default_rng(7)
    rows = [
        {
            "a": rng.normal(size=300_001).astype(np.float32),
            "b": rng.integers(-9, 9, 99_999),
            "c": rng.normal(size=70_001),
        }
        for _ in range(5)
    ]
    bodies = {
        folded(rows, [5, 4, 3, 2, 1], tmp_path, threads=threads, block_columns=width)
        for threads, width in [(1, None), (1, 1009), (2, None), (3, 777), (8, 65536), (2, 10**7)]
    }
    assert len(bodies) == 1


def test_a_zero_weight_counts_for_nothing(tmp_path):
    rows = normal_rows(3, "float32")
    assert folded(rows, [2, 0, 3], tmp_path) == folded([rows[0], rows[2]], [2, 3], tmp_path)


def test_no_weight_at_all_is_an_error(tmp_path):
    with pytest.raises(NoUpdates, match="at least one example"):
        folded(normal_rows(2, "float32"), [0, 0], tmp_path)


def test_no_updates_are_an_error(tmp_path):
    with pytest.raises(NoUpdates, match="at least 1 updates, found 0"):
        fold_bytes([], Spec.of({"w": np.ones(1)}), Mean(), tmp_path)


def test_what_is_answered_describes_the_file(tmp_path):
    rows = normal_rows(3, "float16")
    out = tmp_path / "out"
    out.write_bytes(b"rubbish" * 10_000)
    folded = fold(store(tmp_path, rows), spec=Spec.of(rows[0]), strategy=Strategy(Mean()), out=out)
    body, result = out.read_bytes(), folded.weights
    assert folded.state is None
    assert (result.sha256, result.size_bytes) == (hashlib.sha256(body).hexdigest(), len(body))
    assert result.spec == Spec.of(decode(body)) == Spec.of(rows[0])
    assert body == encode(decode(body))


@pytest.mark.parametrize("name", ["avg_values_if_data", "mean"])
def test_overflow_fails_and_names_the_array(name, tmp_path):
    rows = [{"a": np.ones(3), "b": np.array([1.0, 1.7e308]), "c": np.ones(3)} for _ in range(2)]
    start = {"a": np.zeros(3), "b": np.array([0.0, 1.7e308]), "c": np.zeros(3)}
    strategy = Strategy(aggregators.build(name), update_kind="delta")
    with pytest.raises(NonFiniteResult, match="'b'.* update #0 is farthest out there") as raised:
        fold_arrays(strategy, rows[:1], start=start)
    assert raised.value.facts == {"array": "b"}


HUGE = float(np.finfo(np.float32).max)
MODEL = {"a": np.zeros(70_000, np.float32), "w": np.full(4, HUGE, np.float32)}


def breaking(value: float) -> dict[str, np.ndarray]:
    return {"a": np.ones(70_000, np.float32), "w": np.array([0, 0, value, 0], np.float32)}


@pytest.mark.parametrize("executor", [Serial(), Threads(1), Threads(4)])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_an_update_that_breaks_the_round_is_left_out_and_named(executor, place, tmp_path):
    strategy = Strategy(aggregators.build("mean"), update_kind="delta")
    honest = [breaking(-1.0 - index) for index in range(3)]
    updates = [*honest[:place], breaking(HUGE), *honest[place:]]
    with StoredRound(strategy, updates, start=MODEL) as stored:
        found = stored.fold(executor=executor)
    with StoredRound(strategy, honest, start=MODEL, num_clients=4) as stored:
        assert found.model == stored.fold(executor=Serial()).model
    assert [use.verdict for use in found.uses].index("rejected") == place
    assert (found.uses[place].by, found.uses[place].weight) == ("non_finite_result", 0.0)
    assert math.fsum(use.weight or 0.0 for use in found.uses) == pytest.approx(1.0)


def test_all_that_break_the_round_are_left_out_and_no_other():
    strategy = Strategy(aggregators.build("mean"), update_kind="delta")
    updates = [breaking(value) for value in (HUGE, 1.0, HUGE / 2, -2.0, HUGE / 4, -3.0)]
    with StoredRound(strategy, updates, start=MODEL) as stored:
        found = stored.fold(executor=Serial())
    assert [use.verdict for use in found.uses] == ["rejected", "used"] * 3


def test_a_large_update_that_breaks_nothing_is_put_back():
    strategy = Strategy(aggregators.build("mean"), update_kind="delta")
    sent = ((-HUGE, 1), (HUGE / 2, 98), (0.0, 1))
    updates = [Update(breaking(value), num_examples=number) for value, number in sent]
    with StoredRound(strategy, updates, start=MODEL) as stored:
        found = stored.fold(executor=Serial())
    assert [use.verdict for use in found.uses] == ["used", "rejected", "used"]


def test_a_negative_variance_is_of_the_lowest_update():
    rows = [{"bn.running_var": np.array([1.0, value])} for value in (1.0, -9.0, 2.0)]
    with StoredRound(Strategy(Mean()), rows) as stored:
        found = stored.fold(executor=Serial())
    assert [use.by for use in found.uses] == ["", "negative_variance", ""]


@pytest.mark.parametrize("breaks", [(1e30, 1e30), (3e38, 0.0), (0.0, -3e38)])
def test_factors_whose_product_overflows_are_left_out(breaks):
    shapes = {"q.base_layer.w": (2, 2), "q.lora_A.w": (1, 2), "q.lora_B.w": (2, 1)}
    start = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    sent = ((1.0, 1e3), breaks, (1e4, 1.0))
    rows = [
        {"q.lora_A.w": np.full((1, 2), a, np.float32), "q.lora_B.w": np.full((2, 1), b, np.float32)}
        for a, b in sent
    ]
    with StoredRound(FedExLora(), rows, start=start) as stored:
        found = stored.fold(executor=Serial())
    assert [use.by for use in found.uses] == ["", "non_finite_result", ""]


def test_a_control_that_breaks_the_state_is_found_among_large_steps():
    rounds = ArrayRounds(Scaffold(), {"w": np.zeros(2)}, num_clients=1)
    rounds.play([{"w": np.zeros(2), "control/w": np.full(2, 1.79e308)}])
    sent = [(float(step), 0.0) for step in range(1, 30)] + [(0.0, 1.7e308)]
    updates = [{"w": np.full(2, step), "control/w": np.full(2, control)} for step, control in sent]
    with StoredRound(Scaffold(), updates, start=rounds.model, state=rounds.state, num_clients=1) as stored:
        found = stored.fold(executor=Serial())
    assert [use.verdict for use in found.uses] == ["used"] * 29 + ["rejected"]


@pytest.mark.parametrize("policy", ["newest", "collected"])
def test_a_negative_variance_that_was_taken_from_one_update_is_of_that_update(policy):
    shape = (64,) if policy == "collected" else ()
    strategy = Strategy(Mean(), policies=ArrayPolicies.of({"running_var": policy}))
    values = [-9.0] * 20 + [2.0, -1.0] if policy == "newest" else [1.0] * 20 + [-9.0, 2.0]
    updates = [{"running_var": np.array(value), "w": np.zeros(1)} for value in values]
    start = {"running_var": np.zeros(shape), "w": np.zeros(1)}
    with StoredRound(strategy, updates, start=start) as stored:
        found = stored.fold(executor=Serial())
    rejected = [index for index, use in enumerate(found.uses) if use.by == "negative_variance"]
    assert rejected == [21 if policy == "newest" else 20]


@pytest.mark.parametrize("width", [1, 2, None])
def test_the_first_column_that_is_wrong_counts_in_blocks_of_any_width(width):
    start = {"running_var": np.array([1.0, HUGE], np.float32)}
    update = {"running_var": np.array([-9.0, HUGE], np.float32)}
    strategy = Strategy(Mean(), update_kind="delta")
    message = "found -8.0; update #0"
    with (
        StoredRound(strategy, [update], start=start) as stored,
        pytest.raises(NegativeVariance, match=message),
    ):
        stored.fold(executor=Serial(), block_columns=width)


def test_a_model_that_has_diverged_is_the_fault_of_none():
    strategy = Strategy(Mean(), optimiser=Sgd(1e300), update_kind="delta")
    with pytest.raises(NonFiniteResult, match="leaving out 16 of 20 updates does not help"):
        fold_arrays(strategy, [{"w": np.full(2, 1e200)}] * 20, start={"w": np.zeros(2)})


@pytest.mark.parametrize("num_updates", [3, 5, 17, 33])
def test_no_honest_update_is_accused_because_one_of_all_changed_nothing(num_updates):
    strategy = Strategy(Mean(), optimiser=Sgd(1e39), update_kind="delta")
    steps = [{"w": np.full(2, 0.1 + index, np.float32)} for index in range(1, num_updates)]
    steps.append({"w": np.zeros(2, np.float32)})
    with (
        StoredRound(strategy, steps, start={"w": np.zeros(2, np.float32)}) as stored,
        pytest.raises(NonFiniteResult, match=f"of {num_updates} updates does not help"),
    ):
        stored.fold(executor=Serial())


def breaks_alone(values: Sequence[float]) -> bool:
    """The oracle: whether the mean of these changes of HUGE overflows float32."""
    with np.errstate(over="ignore"):
        return not np.isfinite(np.float32(HUGE + math.fsum(values) / len(values)))


@pytest.mark.parametrize("seed", range(12))
def test_the_updates_that_are_left_out_are_needed_each_and_at_most_half(seed):
    rng = np.random.default_rng(seed)
    num_updates = int(rng.integers(2, 9))
    values = rng.choice([HUGE, HUGE / 2, HUGE / 4, -HUGE / 8, 1.0, -1.0, 0.0], num_updates).tolist()
    sets = [kept for size in range(1, num_updates + 1) for kept in itertools.combinations(values, size)]
    can_be_mended = any(len(kept) * 2 >= num_updates and not breaks_alone(kept) for kept in sets)
    strategy = Strategy(Mean(), update_kind="delta")
    with StoredRound(strategy, [breaking(value) for value in values], start=MODEL) as stored:
        try:
            uses = stored.fold(executor=Serial()).uses
        except NonFiniteResult:
            assert not can_be_mended
            return
    kept = [value for value, use in zip(values, uses, strict=True) if use.counts]
    left_out = [value for value, use in zip(values, uses, strict=True) if not use.counts]
    assert not breaks_alone(kept)
    assert len(left_out) * 2 <= num_updates
    assert all(breaks_alone([*kept, value]) for value in left_out)


@pytest.mark.parametrize("optimiser", [FedAvgM(0.9, 1e30), FedAvgM(0.999, 1e30)])
def test_a_state_that_breaks_the_model_by_itself_is_the_fault_of_none(optimiser):
    strategy = Strategy(Mean(), optimiser=optimiser, update_kind="delta")
    rounds = ArrayRounds(strategy, {"w": np.zeros(2, np.float32)})
    rounds.play([{"w": np.full(2, 2e8, np.float32)}])
    honest = [{"w": np.full(2, step, np.float32)} for step in (-1.0, 0.5, 0.1)]
    with (
        StoredRound(strategy, honest, start=rounds.model, state=rounds.state) as stored,
        pytest.raises(NonFiniteResult, match="so it would be without any update"),
    ):
        stored.fold(executor=Serial())


NEAR = np.finfo(np.float16).max


@pytest.mark.parametrize("place", range(3))
def test_a_number_of_steps_that_lengthens_all_others_is_at_fault(place):
    honest = [{"w": np.full(2, 0.5, np.float16)}, {"w": np.full(2, 0.001, np.float16)}]
    sent = [Update(arrays, metrics={"num_steps": 3}) for arrays in honest]
    sent.insert(place, Update({"w": np.zeros(2, np.float16)}, metrics={"num_steps": 1e9}))
    strategy = Strategy(FedNova(), update_kind="delta")
    with StoredRound(strategy, sent, start={"w": np.zeros(2, np.float16)}) as stored:
        found = stored.fold(executor=Serial())
    assert [use.verdict for use in found.uses].index("rejected") == place


def test_a_step_that_is_too_long_by_itself_is_at_fault_whatever_the_numbers_of_steps():
    values = ((100.0, 1), (NEAR, 2), (-5.0, 50))
    sent = [Update({"w": np.full(2, value, np.float16)}, metrics={"num_steps": n}) for value, n in values]
    strategy = Strategy(FedNova(), update_kind="delta")
    with StoredRound(strategy, sent, start={"w": np.full(2, 1000, np.float16)}) as stored:
        found = stored.fold(executor=Serial())
    assert [use.verdict for use in found.uses] == ["used", "rejected", "used"]


@dataclass(frozen=True)
class Counts(Mean):
    """A mean whose state overflows beside any step, in the second column."""

    @property
    def states(self):
        return {"seen": 0.0}

    def combine(self, block, decision):
        block.state("seen")[:] += np.where(block.row(0) == 2.0, np.inf, 0.0)
        return super().combine(block, decision)


@pytest.mark.parametrize("width", [1, 2, 3, None])
def test_the_first_column_counts_whether_the_model_or_a_state_overflows_in_it(width):
    start = {"w": np.array([0, 0, HUGE], np.float32)}
    update = {"w": np.array([1, 2, HUGE], np.float32)}
    with (
        StoredRound(Strategy(Counts(), update_kind="delta"), [update], start=start) as stored,
        pytest.raises(NonFiniteResult, match=r"state 'aggregator.seen'"),
    ):
        stored.fold(executor=Serial(), block_columns=width)


@pytest.mark.parametrize(
    ("dtype", "largest"), [("float16", 65504), ("bfloat16", 3.38e38), ("float32", 3.4e38)]
)
def test_the_largest_values_of_small_dtypes_do_not_overflow(dtype, largest, tmp_path):
    rows = [{"w": np.array([largest, -largest], NUMPY_DTYPES[dtype])} for _ in range(3)]
    assert folded(rows, [1, 2, 4], tmp_path) == encode(rows[0])


def test_denormals_are_kept(tmp_path):
    rows = [{"w": np.array([1e-45, -1e-45, 5e-324], np.float32), "x": np.array([5e-324])} for _ in range(2)]
    assert folded(rows, [1, 1], tmp_path) == encode(rows[0])


def nearest_bfloat16(value: float) -> float:
    # Its finite values from 0 on: the bits count them.
    grid = np.arange(0x7F80, dtype=np.uint16).view(NUMPY_DTYPES["bfloat16"]).astype(np.float64)
    i = int(np.searchsorted(grid, abs(value)))
    low, high = Fraction(grid[i - 1]) if i else Fraction(0), Fraction(grid[i])
    below, above = Fraction(abs(value)) - low, high - Fraction(abs(value))
    up = above < below or (above == below and i % 2 == 0)
    return float(np.copysign(float(high if up else low), value))


@settings(max_examples=300)
@given(st.floats(-3e38, 3e38), st.sampled_from([0, 2.0**-40, -(2.0**-40)]))
def test_bfloat16_is_rounded_once(value, nudge):
    # Halfway between two bfloat16 values and a little beside: rounding to float32 first would lose the little.
    with np.errstate(all="ignore"):
        single = np.array(value, np.float32)
    half = (single.view(np.uint32) & np.uint32(0xFFFF0000) | np.uint32(0x8000)).view(np.float32)
    for number in (value, float(half) * (1 + nudge)):
        if abs(number) < 3.3e38:
            assert float(cast(np.array([number]), "bfloat16")[0]) == nearest_bfloat16(number)


@pytest.mark.parametrize("dtype", sorted(FLOATS))
def test_casts_of_what_is_not_finite(dtype):
    with np.errstate(invalid="ignore"):
        found = cast(np.array([np.nan, np.inf, -np.inf, -0.0]), dtype).astype(np.float64)
    assert np.isnan(found[0])
    assert found[1:].tolist() == [np.inf, -np.inf, 0]
    assert np.signbit(found[3])


def test_progress_never_falls_and_ends_with_one(tmp_path):
    import threading

    told, callers = [], set()

    def progress(share):
        told.append(share)
        callers.add(threading.get_ident())

    folded(normal_rows(3, "float32"), [1, 2, 3], tmp_path, threads=3, block_columns=100, progress=progress)
    assert told == sorted(told)
    assert len(told) == 11
    assert all(0 < share <= 1 for share in told)
    assert told[-1] == 1
    assert callers == {threading.get_ident()}


@pytest.mark.parametrize("num_examples", [-1, 1.0, True, None, "3"])
def test_numbers_of_examples_that_mean_nothing_are_refused(num_examples, tmp_path):
    with pytest.raises(ValueError, match="num_examples"):
        UpdateFile(tmp_path, num_examples, "#1")
