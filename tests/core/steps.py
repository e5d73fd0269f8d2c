"""The step that a strategy takes, given what the clients changed as the rows of a matrix: through real files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fma_core.aggregation.aggregators import aggregators
from fma_core.aggregation.strategy import Strategy
from fma_core.arrays.codecs.safetensors import decode
from fma_core.arrays.dtypes import NUMPY_DTYPES
from fma_core.arrays.spec import Spec
from fma_core.engine import Serial
from tests.core.weights import fold_bytes, store


def step_of(
    name: str,
    params: Mapping[str, Any],
    matrix: NDArray[Any],
    folder: Path,
    *,
    stages: Sequence[Mapping[str, Any]] = (),
    dtype: str = "float64",
    num_examples: Sequence[int] | None = None,
    clients: Sequence[str] | None = None,
    **options: Any,
) -> NDArray[np.float64]:
    """The rows are split into two arrays, so that what is measured must look at more than one."""
    strategy = Strategy.build(aggregators.build(name, params), stages=stages, update_kind="delta")
    rows = [_arrays(row.astype(NUMPY_DTYPES[dtype])) for row in matrix]
    updates = store(folder, rows, num_examples)
    names = [str(index) for index in range(len(rows))] if clients is None else clients
    updates = [replace(update, client=name) for update, name in zip(updates, names, strict=True)]
    options = {"executor": Serial(), **options}
    found = decode(fold_bytes(updates, Spec.of(rows[0]), strategy, folder, **options))
    return np.concatenate([found["a"], found["b"]]).astype(np.float64)


def _arrays(row: NDArray[Any]) -> dict[str, NDArray[Any]]:
    return {"a": row[:2], "b": row[2:]}
