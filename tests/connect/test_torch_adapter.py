from typing import Any

import ml_dtypes
import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="torch is not installed (pip install torch==2.13.0)")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from fma_connect.adapters.torch_state_dict import DTYPES, array_policies, from_arrays, to_arrays  # noqa: E402
from fma_core.arrays.codecs import safetensors  # noqa: E402

SHAPES = [(), (1,), (5,), (2, 3), (2, 0, 3), (2, 1, 3, 2)]


def random_tensor(dtype: str, shape: tuple[int, ...], seed: int = 0) -> Any:
    kind = getattr(torch, dtype)
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return torch.from_numpy(np.asarray(rng.integers(0, 2, size=shape))).to(kind)
    if dtype.startswith(("float", "bfloat")):
        return torch.from_numpy(np.asarray(rng.normal(size=shape) * 1000)).to(kind)
    limits = np.iinfo(dtype)
    return torch.from_numpy(
        np.asarray(rng.integers(limits.min, limits.max, size=shape, endpoint=True, dtype=dtype))
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_dtype_and_shape_comes_back_exactly(dtype: str, shape: tuple[int, ...]) -> None:
    state = {"t": random_tensor(dtype, shape), "other": torch.ones(1)}

    arrays = to_arrays(state)
    back = from_arrays(safetensors.decode(safetensors.encode(arrays)), like=state)

    assert arrays["t"].dtype.name == dtype
    assert back["t"].dtype == state["t"].dtype
    assert back["t"].shape == state["t"].shape
    assert torch.equal(back["t"], state["t"])


@given(bits=st.integers(0, 2**16 - 1))
def test_every_finite_bfloat16_keeps_its_bits(bits: int) -> None:
    tensor = torch.tensor([bits], dtype=torch.int32).to(torch.int16).view(torch.bfloat16)

    array = to_arrays({"t": tensor})["t"]
    back = from_arrays({"t": array})["t"]

    assert array.dtype == ml_dtypes.bfloat16
    assert array.view(np.uint16)[0] == bits
    assert torch.equal(back.view(torch.int16), tensor.view(torch.int16))


def test_model_with_counters_and_tied_weights_computes_the_same() -> None:
    def make() -> Any:
        model = torch.nn.Sequential(
            torch.nn.Linear(6, 6), torch.nn.BatchNorm1d(6), torch.nn.ReLU(), torch.nn.Linear(6, 6)
        )
        model[3].weight = model[0].weight
        return model

    torch.manual_seed(1)
    trained, other = make(), make()
    trained(torch.randn(16, 6))
    inputs = torch.randn(4, 6)

    arrays = to_arrays(trained.state_dict())
    other.load_state_dict(from_arrays(arrays, like=other.state_dict()))

    assert arrays["1.num_batches_tracked"].dtype == np.int64
    assert arrays["1.num_batches_tracked"].shape == ()
    assert np.array_equal(arrays["0.weight"], arrays["3.weight"])
    assert torch.equal(trained.eval()(inputs), other.eval()(inputs))


def test_any_memory_layout_is_copied() -> None:
    base = torch.arange(24.0).reshape(2, 3, 4)
    state = {
        "transposed": base.permute(2, 0, 1),
        "strided": base[:, ::2],
        "expanded": torch.ones(1).expand(5),
        "slice": base[1],
        "channels_last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(base[0].clone()),
        "negated": torch.imag(torch.tensor([1 + 2j]).conj()),
        "bfloat16": base.to(torch.bfloat16).permute(2, 0, 1),
    }

    arrays = to_arrays(state)

    assert all(torch.equal(tensor, state[name]) for name, tensor in from_arrays(arrays).items())
    assert all(
        (array.flags.c_contiguous and array.flags.owndata) or array.dtype == ml_dtypes.bfloat16
        for array in arrays.values()
    )
    arrays["slice"][:] = -1
    assert base[1, 0, 0] == 12


def test_pulled_arrays_become_tensors_to_train() -> None:
    array = np.ones(3, dtype=np.float32)
    array.flags.writeable = False

    tensor = from_arrays({"t": array})["t"]
    tensor += 1

    assert array[0] == 1


def test_state_dict_keeps_order_and_versions() -> None:
    state = torch.nn.BatchNorm1d(2).state_dict()

    back = from_arrays(dict(sorted(to_arrays(state).items(), reverse=True)), like=state)

    assert list(back) == list(state)
    assert back._metadata == state._metadata  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"drop": "w"}, "array 'w' is missing"),
        ({"add": np.ones(1)}, "array 'surprise' is unknown"),
        ({"w": np.ones((2, 1), np.float32)}, r"array 'w' has shape \(2, 1\); the state_dict has \(2,\)"),
        ({"w": np.ones(2)}, "array 'w' has dtype torch.float64; the state_dict has torch.float32"),
    ],
)
def test_arrays_that_do_not_fit_are_told_by_name(change: dict[str, np.ndarray | str], why: str) -> None:
    state = {"w": torch.ones(2), "b": torch.ones(1)}
    arrays = to_arrays(state)
    arrays |= {name: array for name, array in change.items() if name == "w"}  # type: ignore[misc]
    if "drop" in change:
        del arrays["w"]
    if "add" in change:
        arrays["surprise"] = np.ones(1)

    with pytest.raises(ValueError, match=why):
        from_arrays(arrays, like=state)


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"version": 3}, "entry 'x' is a dict; only tensors"),
        ("complex", "complex64"),
        ("sparse", "sparse_coo of float32"),
        ("float8", "float8_e4m3fn"),
    ],
)
def test_what_has_no_array_is_refused(entry: object, why: str) -> None:
    made = {
        "complex": lambda: torch.ones(2, dtype=torch.complex64),
        "sparse": lambda: torch.eye(2).to_sparse(),
        "float8": lambda: torch.ones(2).to(torch.float8_e4m3fn),
    }
    value = made[entry]() if isinstance(entry, str) else entry

    with pytest.raises(ValueError, match=why):
        to_arrays({"x": value})


def test_array_that_torch_has_no_dtype_for_is_refused() -> None:
    with pytest.raises(ValueError, match="has dtype complex64"):
        from_arrays({"x": np.ones(2, dtype=np.complex64)})


def test_buffers_have_policies_where_their_names_do_not_tell() -> None:
    class Net(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.bn = torch.nn.BatchNorm1d(3)
            self.linear = torch.nn.Linear(3, 2)
            self.register_buffer("spread", torch.ones(3))
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
            self.register_buffer("position_ids", torch.arange(5))
            self.register_buffer("mask", torch.ones(3, dtype=torch.bool))
            self.register_buffer("not_saved", torch.ones(3), persistent=False)

    assert array_policies(Net()) == {
        "mask": "averaged",
        "position_ids": "newest",
        "spread": "averaged",
        "steps": "averaged",
    }
