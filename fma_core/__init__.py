"""The arithmetic of federated learning on plain numpy: specs, codecs, aggregation rules and the engine."""

from typing import TYPE_CHECKING, Any

from fma_core import aliases
from fma_core.arrays.codecs.safetensors import Limits, decode, encode, read_file
from fma_core.arrays.spec import ArraySpec, Spec
from fma_core.errors import FMAError

if TYPE_CHECKING:
    from fma_core.simulation.simulate import simulate

__all__ = ["ArraySpec", "FMAError", "Limits", "Spec", "decode", "encode", "read_file", "simulate"]

aliases.install(
    *(
        aliases.Alias(f"fma_core.{old}", f"fma_core.{new}", since="0.2", until="0.4")
        for old, new in {
            "aggregators": "aggregation.aggregators",
            "optimisers": "aggregation.optimisers",
            "stages": "aggregation.stages",
            "staleness": "aggregation.staleness",
            "strategy": "aggregation.strategy",
            "codecs": "arrays.codecs",
            "dtypes": "arrays.dtypes",
            "spec": "arrays.spec",
            "closing": "rounds.closing",
            "cohorts": "rounds.cohorts",
            "requirements": "rounds.requirements",
            "round_policy": "rounds.policy",
        }.items()
    )
)


def __getattr__(name: str) -> Any:
    # An edge device imports this package for its codecs, and should not wait for the engine.
    if name == "simulate":
        from fma_core.simulation import simulate

        return simulate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
