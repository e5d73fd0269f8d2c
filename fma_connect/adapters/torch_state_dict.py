"""Torch `state_dict`s, with their parameters and buffers.

arrays = torch_state_dict.to_arrays(model.state_dict())
model.load_state_dict(torch_state_dict.from_arrays(arrays, like=model.state_dict()))
anna.set_initial_model(id, arrays, array_policies=torch_state_dict.array_policies(model))
"""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from fma_connect.adapters.matching import native_copy, refuse_other_names, refuse_other_shape
from fma_connect.exceptions import InvalidArgument
from fma_connect.pulled import Arrays
from fma_core.arrays.policies import DEFAULT_POLICIES, Policy

__all__ = ["array_policies", "from_arrays", "to_arrays"]

DTYPES = (
    "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "bfloat16", "float32",
    "float64",
)  # fmt: skip
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def to_arrays(state_dict: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """Copies of the tensors as arrays, from any device and memory layout; a tied tensor has all its names."""
    return {name: _array_of(name, tensor) for name, tensor in state_dict.items()}


def array_policies(model: Any) -> dict[str, Policy]:
    """The policies of a module's buffers, where the server would not choose them by their names.

    Buffers are not trained: floating-point ones are averaged, and tables of integers are taken from the newest update.
    """
    sent = model.state_dict()
    wanted = {name: _policy_of(tensor) for name, tensor in model.named_buffers(remove_duplicate=False)}
    return {
        name: policy
        for name, policy in wanted.items()
        if name in sent and DEFAULT_POLICIES.policy_of(name) == "stepped"
    }


def _policy_of(buffer: Any) -> Policy:
    is_table = not (buffer.is_floating_point() or str(buffer.dtype) == "torch.bool" or buffer.numel() <= 1)
    return "newest" if is_table else "averaged"


def from_arrays(arrays: Arrays, *, like: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The tensors of the arrays, ready for `load_state_dict`.

    like: a state_dict of the same model. Names, shapes and dtypes must match it; order and devices are taken from it.
    """
    torch: Any = importlib.import_module("torch")
    if like is None:
        return {name: _tensor_of(torch, name, array) for name, array in arrays.items()}
    refuse_other_names(arrays, like, of="the state_dict")
    tensors: OrderedDict[str, Any] = OrderedDict()
    for name, own in like.items():
        tensor = _tensor_of(torch, name, arrays[name])
        refuse_other_shape(name, tuple(tensor.shape), tuple(own.shape), of="the state_dict")
        if tensor.dtype != own.dtype:
            raise InvalidArgument(f"array {name!r} has dtype {tensor.dtype}; the state_dict has {own.dtype}")
        tensors[name] = tensor.to(own.device)
    if hasattr(like, "_metadata"):
        # The versions of the modules, which load_state_dict needs to read old layouts.
        tensors._metadata = like._metadata  # type: ignore[attr-defined]
    return tensors


def _array_of(name: str, tensor: Any) -> npt.NDArray[Any]:
    torch: Any = importlib.import_module("torch")
    if not isinstance(tensor, torch.Tensor):
        raise InvalidArgument(f"entry {name!r} is a {type(tensor).__name__}; only tensors can be sent")
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in DTYPES or tensor.layout != torch.strided:
        raise InvalidArgument(
            f"tensor {name!r} is {tensor.layout} of {dtype}; dense ones of {', '.join(DTYPES)} can be sent"
        )
    dense = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    if dense.dtype == torch.bfloat16:
        # numpy has no bfloat16: view the same bits as another dtype.
        return native_copy(dense.view(torch.int16).numpy()).view(_BFLOAT16)
    return native_copy(dense.numpy())


def _tensor_of(torch: Any, name: str, array: npt.NDArray[Any]) -> Any:
    own = native_copy(array)
    if own.dtype == _BFLOAT16:
        return torch.from_numpy(own.view(np.int16)).view(torch.bfloat16)
    if own.dtype.name not in DTYPES:
        raise InvalidArgument(
            f"array {name!r} has dtype {own.dtype.name}; torch can take {', '.join(DTYPES)}"
        )
    return torch.from_numpy(own)
