"""FedEx-LoRA: the mean of low-rank adapters; the base weights take the residual that this mean leaves.

    B̄ = Σ p_i B_i,   Ā = Σ p_i A_i,   W ← W + scaling · (Σ p_i B_i A_i − B̄ Ā),   p_i = n_i / Σ n_j

so that W + scaling · B̄ Ā is the mean of the clients' models afterwards. B̄ and Ā are what is published: means that are
rounded to the dtype of the adapters leave a residual of their own. Source: Singhal et al. 2025, arXiv:2410.09432,
where the mean is plain; here it is weighted by examples, like FedAvg's.

Freezing A makes plain means exact as well (FFA-LoRA): that is `mean` and the stage {"name": "only", "patterns":
["*lora_B*"]}.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from fma_core.aggregation.aggregators.aggregator import ArrayReader, Float64, UpdateKind, aggregators
from fma_core.aggregation.aggregators.mean import Mean, lowest_terms
from fma_core.arrays import dtypes
from fma_core.arrays.spec import ArraySpec, Spec
from fma_core.errors import InvalidStrategy
from fma_core.parameters import Bounds


@aggregators.register("fedex_lora")
@dataclass(frozen=True)
class FedExLora(Mean):
    """The mean of LoRA's A and B by number of examples; the base weights, which are not sent, take the exact residual.

    Base weights W have the shape (out, in), B (out, rank), A (rank, in). Their names are that of A with `a` replaced.
    The residual is rounded to the dtype of W.

    >>> import numpy as np
    >>> from fma_core.in_memory import fold_arrays
    >>> start = {f"q{part}weight": np.zeros((1, 1)) for part in (".lora_A.", ".lora_B.", ".base_layer.")}
    >>> ones = {"q.lora_A.weight": np.array([[1.0]]), "q.lora_B.weight": np.array([[1.0]])}  # B A is 1
    >>> threes = {"q.lora_A.weight": np.array([[3.0]]), "q.lora_B.weight": np.array([[3.0]])}  # B A is 9
    >>> fold_arrays(FedExLora(), [ones, threes], start)["q.base_layer.weight"]  # the mean 5, less 2 · 2
    array([[1.]])
    """

    source: ClassVar[str] = "Singhal et al. 2025 (FedEx-LoRA), arXiv:2410.09432"
    # A round always has base weights to start from, and B̄ and Ā must be the means of the arrays that were sent.
    relative_to: ClassVar[Literal["base", "start"]] = "start"
    is_translation_equivariant: ClassVar[bool] = False
    acts_on_weights: ClassVar[bool] = False
    update_kinds: ClassVar[tuple[UpdateKind, ...]] = ("weights",)
    takes_staleness: ClassVar[bool] = False
    takes_optimiser: ClassVar[bool] = False
    takes_clipped_rows: ClassVar[bool] = False
    takes_mixed_rows: ClassVar[bool] = False

    a: Annotated[str, "the part that the names of the A arrays have in common"] = ".lora_A."
    b: Annotated[str, "the part that the names of the B arrays have in its place"] = ".lora_B."
    base: Annotated[str, "the part that the names of the base weights have in its place"] = ".base_layer."
    scaling: Annotated[float, Bounds(gt=0), "the factor of the product B A: LoRA's alpha / rank"] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.a or not self.b or len({self.a, self.b, self.base}) < 3:
            raise ValueError("a and b must not be empty, and a, b and base must differ")

    def computed_arrays(self, spec: Spec) -> Mapping[str, Sequence[str]]:
        factors: dict[str, Sequence[str]] = {}
        for array in spec.arrays:
            if self.a in array.name:
                base, b = self._partner(array.name, self.base, spec), self._partner(array.name, self.b, spec)
                _check_shapes(array, b, base)
                if base.name in factors:
                    raise _refused(
                        f"array {base.name!r} belongs to {factors[base.name][0]!r} and to {array.name!r}"
                    )
                factors[base.name] = (array.name, b.name)
            elif self.b in array.name and array.name.replace(self.b, self.a) not in spec.by_name:
                raise _refused(
                    f"array {array.name!r} needs an A; {array.name.replace(self.b, self.a)!r} is missing"
                )
        if not factors:
            raise _refused(f"no array's name contains {self.a!r}: there is no A")
        return factors

    def compute(
        self, array: str, sources: Sequence[str], first: int, last: int, arrays: ArrayReader
    ) -> Float64:
        name_of_a, name_of_b = sources
        weights = np.array(lowest_terms(arrays.num_examples), dtype=np.float64)
        weights /= np.add.reduce(weights)
        counted = [(int(update), weights[update]) for update in np.flatnonzero(weights)]
        published_a, published_b = arrays.after(name_of_a), arrays.after(name_of_b, first, last)
        result = arrays.before(array, first, last)
        # Σ p_i (B_i − B̄) A_i + B̄ Σ p_i (A_i − Ā) is the same residual, without a subtraction of nearly equal products.
        # One update at a time: memory holds a few A and some rows of W and B, however many updates there are.
        left_of_a = np.zeros(published_a.shape)
        for update, weight in counted:
            a = arrays.sent(update, name_of_a)
            difference = arrays.sent(update, name_of_b, first, last) - published_b
            difference *= self.scaling * weight
            result += np.matmul(difference, a)
            a -= published_a
            a *= weight
            left_of_a += a
        result += self.scaling * np.matmul(published_b, left_of_a)
        return result

    def _partner(self, name_of_a: str, replacement: str, spec: Spec) -> ArraySpec:
        name = name_of_a.replace(self.a, replacement)
        if name not in spec.by_name:
            what = "a B" if replacement == self.b else "base weights"
            raise _refused(f"array {name_of_a!r} needs {what}; {name!r} is missing")
        return spec.by_name[name]


def _check_shapes(a: ArraySpec, b: ArraySpec, base: ArraySpec) -> None:
    for array in (a, b, base):
        if array.dtype not in dtypes.FLOATS:
            raise _refused(f"array {array.name!r} must be of floating-point numbers, found {array.dtype}")
    fits = len(a.shape) == len(b.shape) == 2 and b.shape[1] == a.shape[0]
    if not fits or base.shape != (b.shape[0], a.shape[1]):
        raise _refused(
            f"the product of {b.name!r} {b.shape} and {a.name!r} {a.shape} must have the shape of {base.name!r}, "
            f"which is {base.shape}"
        )


def _refused(what: str) -> InvalidStrategy:
    return InvalidStrategy(f"the model does not fit fedex_lora: {what}", field="aggregator")
