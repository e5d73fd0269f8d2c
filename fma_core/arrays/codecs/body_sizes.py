"""The sizes that a safetensors body of a spec can have, known before any byte of it."""

from dataclasses import replace

from fma_core.arrays import dtypes
from fma_core.arrays.codecs.header import LENGTH_BYTES, Entry, canonical_form, encoded_header
from fma_core.arrays.spec import Spec
from fma_core.errors import SpecMismatch

# The largest size of `__metadata__` when the size of the rest of the header is known.
METADATA_BYTES = 2**20


def require_possible_size(size_bytes: int, spec: Spec) -> None:
    """Raise SpecMismatch where no uncompressed body of this spec has this size, quantised or not."""
    arrays = [
        replace(array, dtype="int8") if array.dtype in dtypes.FLOATS else array for array in spec.arrays
    ]
    header = encoded_header(Entry(array, 0, 0) for array in arrays).rstrip(b" ")
    least = len(header) + sum(array.size_bytes for array in arrays)
    most = LENGTH_BYTES + largest_header_bytes(spec) + spec.data_size_bytes
    if not least <= size_bytes <= most:
        raise SpecMismatch(
            f"a body with the model's arrays has between {least} and {most} bytes; {size_bytes} were announced"
        )


def largest_header_bytes(spec: Spec) -> int:
    """The most bytes of JSON that the header of a body of this spec may have."""
    return 2 * len(canonical_form(spec).header) + METADATA_BYTES
