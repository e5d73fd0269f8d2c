"""From the body of a request to a blob: checked on the way, in the store before any row speaks of it."""

import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fma_core.arrays.codecs import json_layouts
from fma_core.arrays.codecs.header import read_exactly
from fma_core.arrays.codecs.json_layouts import Layout
from fma_core.arrays.codecs.receive import Received, check_canonical, receive_canonical, receive_safetensors
from fma_core.arrays.codecs.safetensors import Limits, decode, read_file
from fma_core.arrays.codecs.zstd import is_zstd
from fma_core.arrays.spec import Spec
from fma_core.errors import InvalidSpec, InvalidWeights, SpecMismatch
from fma_django import conf
from fma_django.errors import DigestMismatch
from fma_django.models import FederatedModel
from fma_django.record.json_memory import NUMBER_BYTES, reserved
from fma_django.record.json_process import HeldJson
from fma_django.record.json_schema import require_schema
from fma_django.record.json_weights import Wanted, weights_of
from fma_django.storage import get_store
from fma_django.storage.errors import full_disk_told

# Up to here a body is whole in memory, and needs no file beside the one that is stored.
SMALL_BYTES = 2**20


@dataclass(frozen=True)
class SafetensorsBody:
    """A body that is read in pieces, and never whole in memory when it is large.

    size_bytes, wire_sha256: of the bytes as they come; the hash (hex) is what the sender says of them.
    content_encoding: "" or "zstd". digest_header: the header that had the hash.
    file: a local file of these bytes, which never changes again: it is stored under a second name, if it is canonical.
    """

    read: Callable[[int], bytes | memoryview]
    size_bytes: int
    wire_sha256: str | None = None
    content_encoding: str = ""
    digest_header: str = "Content-Digest"
    file: Path | None = None


@dataclass(frozen=True)
class JsonBody:
    """Weights as parsed JSON, in one of FMA's layouts; a HeldJson when they are large."""

    value: Any


WeightsBody = SafetensorsBody | JsonBody


@dataclass(frozen=True)
class StoredWeights:
    """Weights in the store: their address, size, arrays and JSON layout."""

    sha256: str
    size_bytes: int
    spec: Spec
    layout: Layout


def store_weights(
    body: WeightsBody,
    *,
    spec: Spec | None,
    layout: Layout | None = None,
    schema: Any = None,
    field: str = "data",
) -> StoredWeights:
    """Check a body against `spec` (any, when None) and `schema` (a JSON Schema), and put it into the store.

    Raises the errors of fma_core for weights that are malformed, do not fit or are not finite, SchemaViolation,
    DigestMismatch; then nothing is left behind. All carry the fact `field`.
    """
    try:
        return _store(body, spec=spec, layout=layout, schema=schema, field=field)
    except (InvalidSpec, InvalidWeights, SpecMismatch) as error:
        error.facts.setdefault("field", field)
        raise


def _store(
    body: WeightsBody, *, spec: Spec | None, layout: Layout | None, schema: Any, field: str
) -> StoredWeights:
    if isinstance(body, JsonBody):
        return _store_json(
            body.value, Wanted(spec=spec, layout=layout, schema=schema, limits=limits(), field=field)
        )
    coded = is_zstd(body.content_encoding)
    if spec is not None and body.size_bytes <= min(SMALL_BYTES, limits().max_bytes) and not coded:
        data = read_exactly(body.read, body.size_bytes)
        received = receive_canonical(data, spec, limits=limits())
        if received is not None:
            _require_digest(body, received.wire_sha256)
            if schema is not None:
                with reserved(NUMBER_BYTES * spec.num_parameters):
                    require_schema(json_layouts.json_of(decode(data), layout or "named"), schema, field=field)
            get_store().put_bytes(data, received.sha256)
            return StoredWeights(received.sha256, received.size_bytes, spec, layout or "named")
        body = replace(body, read=io.BytesIO(data).read)
    with _received_file(body, spec) as (path, received):
        _require_digest(body, received.wire_sha256)
        if schema is not None:
            with reserved(NUMBER_BYTES * received.spec.num_parameters):
                require_schema(json_layouts.json_of(read_file(path), layout or "named"), schema, field=field)
        get_store().put_file(path, received.sha256)
    return StoredWeights(received.sha256, received.size_bytes, received.spec, layout or "named")


@contextmanager
def _received_file(body: SafetensorsBody, spec: Spec | None) -> Iterator[tuple[Path, Received]]:
    """The canonical file of a body in the spool, removed unless it was moved away."""
    coded = is_zstd(body.content_encoding)
    with spool_file() as path:
        received = None
        if body.file is not None and not coded and _link(body.file, path):
            with open(path, "rb", buffering=0) as file:
                received = check_canonical(file.read, size_bytes=body.size_bytes, spec=spec, limits=limits())
            if received is None:
                path.unlink()
        if received is None:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                received = receive_safetensors(
                    body.read,
                    fd,
                    size_bytes=body.size_bytes,
                    spec=spec,
                    limits=limits(),
                    is_zstd=coded,
                    hash_wire=body.wire_sha256 is not None,
                )
            finally:
                os.close(fd)
        yield path, received


def _link(file: Path, path: Path) -> bool:
    """Replace `path` by a second name of `file`; False on a file system without second names."""
    path.unlink()
    try:
        os.link(file, path)
    except OSError:
        return False
    return True


def _store_json(value: Any, wanted: Wanted) -> StoredWeights:
    if isinstance(value, HeldJson):
        with spool_file() as path:
            spec, layout, sha256, size_bytes = value.body.write(path, wanted)
            get_store().put_file(path, sha256)
        return StoredWeights(sha256, size_bytes, spec, layout)
    spec, layout, data = weights_of(value, wanted)
    sha256 = hashlib.sha256(data).hexdigest()
    get_store().put_bytes(data, sha256)
    return StoredWeights(sha256, len(data), spec, layout)


def limits() -> Limits:
    return Limits(max_bytes=conf.current().max_update_bytes, max_arrays=conf.current().max_arrays)


def update_spec(federated_model: FederatedModel) -> Spec | None:
    """The arrays that clients of a model send: its own, less or more as its strategy says; None while any will do."""
    spec = federated_model.array_spec
    return None if spec is None else federated_model.build_strategy().update_spec(spec)


def update_layout(federated_model: FederatedModel) -> Layout | None:
    """The JSON layout of what clients send: the model's own, or named arrays when they are not those of the model.

    The layouts of one array and of layers have no place for others, nor for the lack of one.
    """
    layout = federated_model.layout
    if layout in {None, "named"} or update_spec(federated_model) == federated_model.array_spec:
        return layout
    return "named"


def settle_spec(federated_model: FederatedModel, stored: StoredWeights, *, is_update: bool = False) -> None:
    """Let the first weights of a model say what its arrays are; check all later ones.

    is_update: they were sent by a client, whose arrays need not be all those of the model.
    Raises SpecMismatch; for first weights InvalidStrategy and InvalidParameter, when the strategy cannot take them.
    """
    if federated_model.spec is None:
        federated_model.build_strategy().check_spec(stored.spec)
    settled = FederatedModel.objects.filter(pk=federated_model.pk, spec__isnull=True).update(
        spec=stored.spec.to_json(), weights_layout=stored.layout
    )
    if settled:
        federated_model.spec = stored.spec.to_json()
        federated_model.weights_layout = stored.layout
        return
    federated_model.refresh_from_db(fields=["spec", "weights_layout"])
    expected = update_spec(federated_model) if is_update else federated_model.array_spec
    if expected is not None:
        expected.check(stored.spec)
    if not federated_model.weights_layout:
        FederatedModel.objects.filter(pk=federated_model.pk).update(weights_layout=stored.layout)
        federated_model.weights_layout = stored.layout


@contextmanager
def spool_file() -> Iterator[Path]:
    """An empty file next to the store, removed unless it was moved away. Raises StorageFull when it cannot grow."""
    folder = get_store().spool_dir()
    with full_disk_told(folder):
        fd, name = tempfile.mkstemp(dir=folder, suffix=".part")
        os.close(fd)
        path = Path(name)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def _require_digest(body: SafetensorsBody, arrived: str | None) -> None:
    if body.wire_sha256 is not None and arrived != body.wire_sha256:
        raise DigestMismatch(
            f"{body.digest_header} says sha-256 {body.wire_sha256}; the body that arrived has {arrived}"
        )
