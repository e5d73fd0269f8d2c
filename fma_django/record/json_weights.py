"""From parsed JSON to the bytes of weights, in the process of a request or in that of large JSON; without Django."""

from dataclasses import dataclass
from typing import Any

from fma_core.arrays.codecs.json_layouts import Layout, arrays_of, layout_of
from fma_core.arrays.codecs.safetensors import Limits, encode_as, layout_within
from fma_core.arrays.spec import Spec


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The conditions for weights. spec, layout: None for any. schema: a JSON Schema. field: the input that has them."""

    spec: Spec | None
    layout: Layout | None
    schema: Any
    limits: Limits
    field: str


def weights_of(value: Any, wanted: Wanted) -> tuple[Spec, Layout, bytes]:
    """The canonical bytes of weights in JSON, with their arrays and layout.

    Raises SchemaViolation, and fma_core's errors of weights that are malformed, do not fit or are not finite.
    """
    if wanted.schema is not None:
        # It takes longer to load than all else here, and few models have a schema.
        from fma_django.record.json_schema import require_schema

        require_schema(value, wanted.schema, field=wanted.field)
    layout = wanted.layout or layout_of(value)
    if layout != "array" and isinstance(value, dict | list):
        # Before they are made: a million of them took 1.2 GB and 25 s, and their text has 7 MB.
        wanted.limits.require_few_arrays(len(value))
    arrays, layout = arrays_of(value, layout=layout, spec=wanted.spec)
    spec = wanted.spec
    if spec is None:
        spec = Spec.of(arrays)
    else:
        spec.check(arrays)
    layout_within(spec, wanted.limits)
    return spec, layout, encode_as(spec, arrays)
