"""The arithmetic of federated learning on plain numpy: specs, codecs, aggregation rules and the engine."""

from typing import TYPE_CHECKING, Any

from fma_core.arrays.codecs.safetensors import Limits, decode, encode, read_file
from fma_core.arrays.spec import ArraySpec, Spec
from fma_core.errors import FMAError

if TYPE_CHECKING:
    from fma_core.simulation import simulate

__all__ = ["ArraySpec", "FMAError", "Limits", "Spec", "decode", "encode", "read_file", "simulate"]


def __getattr__(name: str) -> Any:
    # An edge device imports this package for its codecs, and should not wait for the engine.
    if name == "simulate":
        from fma_core.simulation import simulate

        return simulate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
