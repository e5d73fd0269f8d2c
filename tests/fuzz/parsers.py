"""Targets that are called directly: all that reads bytes, JSON, tokens, queries and headers without a database.

An input is refused by an error that becomes a 4xx, or it is read; whatever was read can be written again and read back
as the same.
"""

from __future__ import annotations

import base64
import importlib
import io
import json
import os
import pkgutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import jwt
import numpy as np
import orjson
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from django.core.exceptions import DisallowedHost, EmptyResultSet
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, QueryDict
from django.test import override_settings
from django_filters.rest_framework import FilterSet
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from rest_framework.exceptions import APIException
from rest_framework.serializers import BaseSerializer

from fma_api.front.environ import environ_of
from fma_api.parsers import content_digest
from fma_api.problems import STATUS
from fma_api.sender_address import network_of
from fma_api.v1 import weights as weight_answers
from fma_api.v1.authentication import bearer_of
from fma_api.v1.clients.filters import ClientParticipationQuery, ModelParticipationQuery
from fma_api.v1.idempotency import idempotency_key
from fma_api.v1.invitations.serializers import NewInvitationSerializer
from fma_api.v1.models.metrics import MetricsQuery
from fma_api.v1.reports.serializers import TelemetrySerializer
from fma_api.v1.updates.facts import facts_in_json, facts_in_query, metrics_in_header
from fma_api.v1.uploads import views as upload_views
from fma_api.v1.waiting import WaitSerializer
from fma_core.arrays.codecs import json_bytes, json_layouts, zstd
from fma_core.arrays.codecs.header import Entry, canonical_entries, encoded_header
from fma_core.arrays.codecs.limits import Limits
from fma_core.arrays.codecs.quantise import blocks, narrowings
from fma_core.arrays.codecs.receive import receive_canonical, receive_safetensors
from fma_core.arrays.codecs.safetensors import decode, encode, encode_as
from fma_core.arrays.spec import Spec
from fma_core.errors import FMAError
from fma_core.evaluation import Question, from_json, merge, metrics_of, statistics_of, to_json
from fma_core.rounds.columns import COLUMNS
from fma_django.clients import jwks
from fma_django.clients.enrolment_jwt import verified
from fma_django.clients.registration import hash_of
from fma_django.experiments.validation import validate
from fma_django.models import FederatedModel
from fma_django.models.stored_json import StoredDecoder, StoredEncoder
from fma_django.record.json_schema import require_schema, require_valid_schema
from fma_django.record.json_values import require_storable
from fma_django.storage.part_file import PartDamaged, PartFile, PartMoved
from tests.fuzz.campaign import ACCEPTED, Fault, Target
from tests.fuzz.mutations import (
    NUMBERS,
    TEXTS,
    Query,
    fuzzed_json,
    json_text,
    mutated_bytes,
    mutated_json,
    mutated_query,
    mutated_text,
    query_text,
    some,
)

ARRAYS: Mapping[str, np.ndarray[Any, Any]] = {
    "b": np.array([0.5, -1.5]),
    "n": np.array([3], np.int64),
    "w": np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32),
}
SPEC = Spec.of(ARRAYS)
FILE = encode(ARRAYS)
LIMITS = Limits(max_bytes=2**20, max_arrays=64, max_header_bytes=2**16)
LAYOUTS: tuple[Any, ...] = (
    {name: array.tolist() for name, array in ARRAYS.items()},
    [[1.0, 2.0], [3.0, 4.0]],
    [0.5, 1.5],
    [[[1.0, 2.0], [3.0, 4.0]], [0.5, 1.5]],
)


def refused(read: Callable[[Any], object]) -> Callable[[Any], str]:
    """A `feed` that says which refusal an input met. What is no refusal, or one that blames the server, is raised."""

    def feed(made: Any) -> str:
        try:
            outcome = read(made)
        except FMAError as error:
            if next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS) >= 500:
                raise
            return error.code
        except APIException as error:
            if error.status_code >= 500:
                raise
            return str(getattr(error, "default_code", type(error).__name__))
        return ACCEPTED if outcome is None else str(outcome)

    return feed


def require(is_true: bool, what: str) -> None:
    if not is_true:
        raise Fault(what)


def require_same(first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    require(first.keys() == second.keys(), f"{[*first]} became {[*second]}")
    for name, array in first.items():
        require(np.array_equal(array, second[name]), f"array {name!r} was read back with other values")


def weights_in_json(body: bytes) -> None:
    arrays, layout = json_layouts.arrays_of(json_bytes.loads(body))
    spec = Spec.of(arrays)
    again, _ = json_layouts.arrays_of(
        json_bytes.loads(json_bytes.dumps(arrays, layout)), layout=layout, spec=spec
    )
    require_same(arrays, again)
    require_same(arrays, decode(encode_as(spec, arrays)))


def weights_of_a_model(body: bytes) -> None:
    arrays, _ = json_layouts.arrays_of(json_bytes.loads(body), layout="named", spec=SPEC)
    SPEC.check(arrays)
    require_same(arrays, decode(encode_as(SPEC, arrays)))


def facts(body: bytes) -> None:
    require_kept(facts_in_json(json_bytes.loads(body)).facts.metrics)


def require_kept(value: Any) -> None:
    """Require that the record gives a value back as it was, and the renderer writes it."""
    text = require_storable(value, field="metrics")
    again = json.loads(text, cls=StoredDecoder)
    require(again == value, f"{value!r} was read back as {again!r}")
    require(orjson.loads(orjson.dumps(again)) == value, "the renderer wrote another value")
    require(json.dumps(again, cls=StoredEncoder, sort_keys=True, ensure_ascii=False) == text, "other text")


UPDATE = {
    "federated_model": 7,
    "data": LAYOUTS[0],
    "base_aggregate": 3,
    "num_examples": 20,
    "metrics": {"loss": 0.25, "by class": [0.5, 1e-7, 3], "a": {"b": "c"}},
}

CONFIGURATION: dict[str, Any] = {
    "aggregator": "trimmed_mean",
    "aggregator_params": {"beta": 0.1},
    "stages": [{"name": "clip_norm", "max_norm": 10}],
    "optimiser": {"name": "fedadam", "learning_rate": 0.01},
    "update_kind": "delta",
    "staleness": {"name": "polynomial", "a": 0.5},
    "array_policies": {"head.*": "kept"},
    "requirement": "require_x_updates",
    "requirement_args": [3],
    "round_policy": {"goal": 10, "deadline_s": 600, "num_rounds": 50, "end_date": "2030-01-31T12:00:00Z"},
    "selector": {"name": "random", "fraction": 0.5},
    "eligibility": [{"name": "battery", "min_level": 0.5}],
    "seed": 5,
    "client_config": {"local_epochs": 2, "rate": 0.1},
    "client_config_overrides": [{"tags": ["gpu"], "set": {"rate": 0.2}}],
    "spec": SPEC.to_json(),
    "update_schema": {"type": "object", "properties": {"b": {"type": "array", "maxItems": 5}}},
}
KNOWN_COLUMNS = {column.name for column in COLUMNS} | {"spec"}


def configuration(body: bytes) -> None:
    members: Any = json_bytes.loads(body)
    if not isinstance(members, dict) or not members.keys() <= KNOWN_COLUMNS:
        # The serializer refuses these before.
        raise_refusal("unknown member")
    model = FederatedModel(name="m", **members)
    validate(model)
    for name in members:
        require_kept(getattr(model, name))


def raise_refusal(code: str) -> None:
    raise FMARefusal(code)


class FMARefusal(APIException):
    """A refusal that another layer gives before."""

    status_code = 400
    default_code = "refused before"


SCHEMA = {
    "type": "object",
    "required": ["b"],
    "properties": {"b": {"type": "array", "items": {"type": "number"}, "maxItems": 4}, "w": {"minItems": 2}},
    "patternProperties": {"^n": {"enum": [[3], [4]]}},
    "additionalProperties": False,
}


def schema(body: bytes) -> None:
    value = json_bytes.loads(body)
    require_storable(value, field="update_schema", max_bytes=64 * 1024)
    require_valid_schema(value, field="update_schema")
    require_schema(LAYOUTS[0], value, field="data")


QUESTIONS: tuple[dict[str, Any], ...] = (
    {"task": "binary", "bins": 4, "with_loss": True},
    {"task": "multiclass", "labels": ["a", "b", "c"]},
    {"task": "regression", "with_loss": True},
)
TRUTHS: tuple[dict[str, Any], ...] = (
    {"y_true": [0, 1, 1], "y_pred": [0, 1, 0], "scores": [0.1, 0.9, 0.4], "losses": [0.5, 0.25, 1.0]},
    {"y_true": ["a", "b", "c"], "y_pred": ["a", "c", "c"]},
    {"y_true": [0.5, 1.5], "y_pred": [0.25, 1.0], "losses": [0.1, 0.2]},
)


@cache
def counted() -> tuple[Any, ...]:
    return tuple(
        to_json(statistics_of(Question.from_json(question), **truth))
        for question, truth in zip(QUESTIONS, TRUTHS, strict=True)
    )


def statistics(made: tuple[int, bytes]) -> None:
    question = Question.from_json(QUESTIONS[made[0]])
    found = from_json(question, json_bytes.loads(made[1]))
    again = from_json(question, json.loads(json.dumps(to_json(found))))
    require(to_json(again) == to_json(found), "statistics were read back as others")
    require_kept(metrics_of(merge([found, again])))


def question(body: bytes) -> None:
    found = Question.from_json(json_bytes.loads(body))
    require(
        Question.from_json(json.loads(json.dumps(found.to_json()))) == found, "another question was read back"
    )


SERIALIZERS: tuple[tuple[type[BaseSerializer[Any]], dict[str, Any]], ...] = (
    (
        TelemetrySerializer,
        {
            "device": {"kind": "workstation", "machine": "x86_64", "accelerator": "A100"},
            "system": {"name": "Linux", "version": "6.8"},
            "resources": {"num_cpus": 8, "memory_bytes": 2**33, "load": 0.5, "battery": 0.5, "is_charging": True},
            "connectivity": {"is_unmetered": True, "ping_ms": 3.5, "download_mbps": 100.0},
            "versions": {"client": "0.1.0", "python": "3.11.4", "framework": "torch 2.13.0"},
        },
    ),
    (
        NewInvitationSerializer,
        {"models": [1, 2], "uses": 5, "organisation": 3, "tags": ["gpu"], "expires_on": "2030-01-01T00:00:00Z"},
    ),
)  # fmt: skip


def serialised(made: tuple[int, bytes]) -> None:
    serializer: Any = SERIALIZERS[made[0]][0](data=json_bytes.loads(made[1]))
    serializer.is_valid(raise_exception=True)
    require_plain(serializer.validated_data)


def require_plain(value: Any) -> None:
    """Require that every text can be kept by every database."""
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set):
        for member in value:
            require_plain(member)
    if isinstance(value, str):
        value.encode()
        require("\0" not in value, f"the text {value!r} holds NUL")


def file_of(random: Random) -> bytes:
    """A safetensors file: the canonical one, or one with a header of another order, dtype, metadata or spelling."""
    if random.random() < 0.3:
        return mutated_bytes(random, FILE)
    entries = list(canonical_entries(SPEC))
    if random.random() < 0.3:
        random.shuffle(entries)
    header: Any = json.loads(encoded_header(entries)[8:])
    if random.random() < 0.2:
        header["__metadata__"] = {"format": random.choice(TEXTS).encode(errors="replace").decode()}
    text = fuzzed_json(random, header) if random.random() < 0.7 else json.dumps(header).encode()
    data = FILE[-SPEC.data_size_bytes :]
    if random.random() < 0.3:
        data = mutated_bytes(random, data)
    length = len(text) if random.random() < 0.9 else random.choice([0, 1, 2**16, 2**31, 2**63, 2**64 - 1])
    return length.to_bytes(8, "little") + text + data


def quantised_file(random: Random) -> bytes:
    """A file of narrower arrays with the declaration of how, and mutations of it."""
    kind: Any = random.choice(("float16", "bfloat16", "int8"))
    narrow, metadata = narrowings(ARRAYS, kind)
    arrays = {name: narrow[name].sent_as if name in narrow else SPEC.by_name[name] for name in ARRAYS}
    entries, start, data = [], 0, []
    for name, spec in arrays.items():
        pieces = blocks(ARRAYS[name])
        said = b"".join(
            narrow[name](piece).tobytes() if name in narrow else piece.tobytes() for piece in pieces
        )
        entries.append(Entry(spec, start, start + len(said)))
        start += len(said)
        data.append(said)
    header: Any = json.loads(encoded_header(entries, metadata)[8:])
    if random.random() < 0.5 and "fma.scales" in metadata:
        scales = fuzzed_json(random, json.loads(metadata["fma.scales"]))
        header["__metadata__"]["fma.scales"] = scales.decode(errors="replace")
    elif random.random() < 0.7:
        header = mutated_json(random, header)
    text = fuzzed_json(random, header) if random.random() < 0.1 else json.dumps(_plain(header)).encode()
    body = b"".join(data)
    if random.random() < 0.3:
        body = mutated_bytes(random, body)
    return len(text).to_bytes(8, "little") + text + body


def _plain(value: Any) -> Any:
    """The value without pieces that are no JSON."""
    return json.loads(json.dumps(value, default=lambda _: None))


@cache
def _scratch() -> int:
    return os.memfd_create("fuzz")


@dataclass(frozen=True)
class Body:
    """A body of weights as it travels. size_bytes: what was announced of it. cut: the most that one read gives."""

    data: bytes
    size_bytes: int
    cut: int
    is_zstd: bool = False
    has_spec: bool = True


def body_of(data: bytes, random: Random, **options: Any) -> Body:
    lie = random.random() < 0.1
    size = len(data) + random.choice([-1, 1, 7, 2**20, 2**40]) if lie else len(data)
    return Body(
        data, max(size, 0), random.choice([1, 7, 4096, 2**20]), has_spec=random.random() < 0.6, **options
    )


def receive(body: Body) -> None:
    stream = io.BytesIO(body.data)
    fd = _scratch()
    os.ftruncate(fd, 0)
    spec = SPEC if body.has_spec else None
    if spec is not None and not body.is_zstd and body.size_bytes == len(body.data):
        receive_canonical(body.data, spec, limits=LIMITS)
    received = receive_safetensors(
        lambda size: stream.read(min(size, body.cut)),
        fd,
        size_bytes=body.size_bytes,
        spec=spec,
        limits=LIMITS,
        is_zstd=body.is_zstd,
    )
    stored = os.pread(fd, LIMITS.max_bytes + 2**16, 0)
    arrays = decode(stored)
    require(encode_as(received.spec, arrays) == stored, "the stored file is not the canonical one")
    require(received.size_bytes == len(stored), "another size was stored than was said")
    if spec is not None:
        require(received.spec == spec, "other arrays were stored than the model has")


def compressed(random: Random) -> Body:
    """A zstd frame, whole or damaged; at times one of a few bytes whose content is huge."""
    if random.random() < 0.02:
        length = 2**26
        plain = iter([length.to_bytes(8, "little"), *[b" " * 2**20] * 16])
        return body_of(b"".join(zstd.encoded(plain)), random, is_zstd=True)
    frame = b"".join(zstd.encoded([file_of(random) if random.random() < 0.5 else FILE]))
    return body_of(mutated_bytes(random, frame) if random.random() < 0.6 else frame, random, is_zstd=True)


ISSUER, AUDIENCE = "https://idp.example.org", "fma"


@cache
def _keys() -> Mapping[str, Any]:
    # Of every run the same: an input is known by its number. `cryptography` makes RSA keys of chance alone.
    numbers = ec.derive_private_key(2**200 + 5, ec.SECP256R1())
    return {
        "EdDSA": ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))),
        "ES256": numbers,
        "RS256": rsa.generate_private_key(65537, 2048),
    }


@cache
def _key_file() -> str:
    kinds: Any = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}
    keys = [
        {**kinds[name].to_jwk(key.public_key(), as_dict=True), "kid": name} for name, key in _keys().items()
    ]
    file = Path(tempfile.mkdtemp(prefix="fma-fuzz-keys-")) / "jwks.json"
    file.write_text(json.dumps({"keys": keys}))
    return str(file)


SIGNED: set[str] = set()
"""The tokens that were signed, without their signatures."""
WHEN = int(time.time())


def signed_token(random: Random) -> str:
    """A JWT: signed and mutated, or with odd claims and then signed."""
    algorithm = random.choices(["EdDSA", "ES256", "RS256"], [20, 10, 1])[0]
    claims: Any = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "scanner-1",
        "iat": WHEN,
        "exp": WHEN + 10**6,
        "organisation": "hospital",
        "tags": ["gpu"],
    }
    header: Any = {"alg": algorithm, "typ": "JWT", "kid": algorithm}
    if random.random() < 0.6:
        claims = mutated_json(random, claims)
    if random.random() < 0.3:
        header = mutated_json(random, header)
    said = ".".join(
        base64.urlsafe_b64encode(fuzzed_json(random, part) if random.random() < 0.1 else _written(random, part))
        .rstrip(b"=")
        .decode()
        for part in (header, claims)
    )  # fmt: skip
    signature = jwt.get_algorithm_by_name(algorithm).sign(said.encode(), _keys()[algorithm])
    SIGNED.add(said)
    token = f"{said}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    return mutated_text(random, token) if random.random() < 0.3 else token


def _written(random: Random, part: Any) -> bytes:
    return json_text(random, part)


def enrol_with_jwt() -> override_settings:
    """Settings that let clients enrol with the tokens of these keys."""
    return override_settings(
        FMA_REGISTRATION="jwt", FMA_JWKS=_key_file(), FMA_JWT_ISSUER=ISSUER, FMA_JWT_AUDIENCE=AUDIENCE
    )


def read_token(token: str) -> None:
    try:
        identity = verified(token)
        require(token.rpartition(".")[0] in SIGNED, "a token was taken that nobody has signed")
        # Tags are checked when they are made.
        require_plain([identity.subject, identity.organisation or ""])
    finally:
        SIGNED.clear()


def read_key_set(content: bytes) -> None:
    try:
        jwks.parsed(content)
    except ValueError:
        raise_refusal("invalid")


def _filter_sets() -> list[type[FilterSet]]:
    import fma_api.v1

    for module in pkgutil.walk_packages(fma_api.v1.__path__, "fma_api.v1."):
        if module.name.endswith(".filters"):
            importlib.import_module(module.name)
    found: list[type[FilterSet]] = []
    waiting = [FilterSet]
    while waiting:
        for kind in waiting.pop().__subclasses__():
            waiting.append(kind)
            if kind.__module__.startswith("fma_api.v1.") and kind._meta.model is not None:
                found.append(kind)
    return sorted(found, key=lambda kind: kind.__name__)


@cache
def filter_sets() -> list[type[FilterSet]]:
    return _filter_sets()


VALUES = {
    "federated_model": "1",
    "client": "0d3e1c4c-9c39-4d6f-8e9b-3ae8d2a7a3fd",
    "since": "2026-01-01T00:00:00Z",
    "until": "2026-12-31T00:00:00+02:00",
    "seen_since": "2026-01-01T00:00:00Z",
    "allow_aggregation": "true",
    "is_active": "false",
    "tag": "gpu",
    "organisation": "hospital",
    "code": "out_of_memory",
    "aggregate": "1",
    "status": "pending",
    "verdict": "used",
}


def filters(made: tuple[int, str]) -> None:
    kind = filter_sets()[made[0]]
    query = QueryDict(made[1])
    found = kind(query, queryset=cast("Any", kind)._meta.model.objects.all(), request=cast("Any", ANYBODY))
    if not found.is_valid():
        raise_refusal("invalid")
    for value in found.form.cleaned_data.values():
        require_plain(value)
    with suppress(EmptyResultSet):
        str(found.qs.query)


ANYBODY = SimpleNamespace(
    user=SimpleNamespace(pk=1, is_active=True, is_superuser=True, has_perm=lambda _: True)
)
QUERIES: tuple[tuple[type[BaseSerializer[Any]], Query], ...] = (
    (WaitSerializer, [("after", "3"), ("wait", "0.5")]),
    (MetricsQuery, [("source", "training"), ("metric", "loss"), ("first_round", "1"), ("per_client", "true")]),
    (ClientParticipationQuery, [("since", "2026-01-01T00:00:00Z"), ("federated_model", "1")]),
    (ModelParticipationQuery, [("until", "2026-01-01T00:00:00Z"), ("tag", "gpu"), ("organisation", "hospital")]),
)  # fmt: skip


def queries(made: tuple[int, str]) -> None:
    serializer: Any = QUERIES[made[0]][0](data=QueryDict(made[1]))
    serializer.is_valid(raise_exception=True)
    require_plain(serializer.validated_data)


def facts_in_a_query(made: tuple[str, str | None]) -> None:
    request = HttpRequest()
    request.META = {"QUERY_STRING": made[0]}
    request.GET = QueryDict(made[0])
    if made[1] is not None:
        request.META["HTTP_FMA_METRICS"] = made[1]
    require_kept(facts_in_query(request).facts.metrics)


DIGEST = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"
HEADERS: tuple[tuple[str, str, Callable[[Any], object]], ...] = (
    ("Content-Digest", DIGEST, lambda request: content_digest(request.META.get("HTTP_CONTENT_DIGEST"))),
    ("Idempotency-Key", "0d3e1c4c-9c39-4d6f-8e9b-3ae8d2a7a3fd", idempotency_key),
    ("Upload-Checksum", f"sha256 {DIGEST[9:-1]}", lambda r: upload_views._checksum(r.headers.get("Upload-Checksum"))),
    ("Upload-Offset", "123", lambda request: upload_views._number(request, "Upload-Offset")),
    ("Range", "bytes=0-99", lambda request: weight_answers._range(request, 100, '"e"')),
    ("If-None-Match", '"a", W/"e", *', lambda request: weight_answers._matches(request, '"e"')),
    ("Content-Encoding", "zstd", lambda request: zstd.is_zstd(request.META["HTTP_CONTENT_ENCODING"])),
    ("FMA-Metrics", '{"loss": 0.5}', metrics_in_header),
    ("Authorization", "Bearer abc.def.ghi", bearer_of),
    ("CLIENT-UUID", "0d3e1c4c-9c39-4d6f-8e9b-3ae8d2a7a3fd", lambda r: hash_of(r.META["HTTP_CLIENT_UUID"])),
    ("X-Forwarded-For", "10.0.0.1, ::1", lambda r: network_of(r.META["HTTP_X_FORWARDED_FOR"].rpartition(",")[2])),
    ("Host", "localhost:8000", lambda request: request.get_host()),
    ("Content-Type", "application/json; charset=utf-8", lambda request: request.content_params),
    ("Cookie", "sessionid=abc; csrftoken=def", lambda request: request.COOKIES),
    ("Accept-Language", "de-DE, en;q=0.5", lambda request: request.headers["Accept-Language"]),
)  # fmt: skip


def header_values(random: Random) -> tuple[int, list[tuple[str, str]], str]:
    """A header, more of the same, and a path, as a server has decoded them: Latin-1."""
    index = random.randrange(len(HEADERS))
    name, value, _ = HEADERS[index]
    said = [(name.lower(), _as_latin1(mutated_text(random, value)))]
    if random.random() < 0.2:
        said.append((mutated_text(random, name.lower()), random.choice(NUMBERS)))
    if random.random() < 0.2:
        said.append((name.lower(), _as_latin1(random.choice(TEXTS))))
    path = "/api/v1/models/" if random.random() < 0.7 else mutated_text(random, "/api/v1/models/1/")
    return index, said, path.encode(errors="replace").decode()


def _as_latin1(text: str) -> str:
    return (
        text.encode("utf-8", "replace")
        .decode("latin-1")
        .replace("\0", "")
        .replace("\n", "")
        .replace("\r", "")
    )


def headers(made: tuple[int, list[tuple[str, str]], str]) -> None:
    index, said, path = made
    scope = SimpleNamespace(
        path=path,
        server="127.0.0.1:8000",
        client="127.0.0.1:5000",
        method="GET",
        query_string="",
        http_version="1.1",
        scheme="http",
        headers=SimpleNamespace(items=lambda: said),
    )
    request = WSGIRequest({**environ_of(cast("Any", scope)), "wsgi.input": io.BytesIO()})
    try:
        HEADERS[index][2](request)
    except DisallowedHost:
        raise_refusal("disallowed host")


def parts(made: list[tuple[int, int, bytes, bytes | None]]) -> None:
    """An upload in parts keeps what came in order, and nothing else, whatever is said of the parts."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        file = PartFile(Path(folder) / "part")
        file.create()
        whole = b""
        for at, length, data, digest in made:
            stream = io.BytesIO(data)
            arrived = data[: max(length, 0)]
            try:
                end = file.append(stream.read, at=at, length=length, sha256=digest)
            except PartMoved:
                require(at != len(whole), "a part at the right place was refused")
            except PartDamaged:
                require(len(arrived) == length, "a part that was cut was called damaged")
            else:
                require(at == len(whole), "a part at the wrong place was taken")
                whole += arrived
                require(end == len(whole), "another size was said than there is")
            require(file.path.read_bytes() == whole, "the file holds other bytes than came")


def some_parts(random: Random) -> list[tuple[int, int, bytes, bytes | None]]:
    found, at = [], 0
    for _ in range(random.randrange(1, 5)):
        data = random.randbytes(random.choice((0, 1, 5, 300)))
        length = len(data) + (random.choice((-1, 1, 10**6)) if random.random() < 0.2 else 0)
        wrong = random.random() < 0.2
        digest = random.choice((None, None, random.randbytes(32)))
        found.append((at + random.choice((-1, 1, 10**9)) if wrong else at, max(length, 0), data, digest))
        if not wrong and digest is None:
            at += min(len(data), max(length, 0))
    return [(max(where, 0), *rest) for where, *rest in found]  # type: ignore[misc]


def columns(random: Random) -> bytes:
    """A configuration of some of the columns that a developer sets."""
    chosen = {name: CONFIGURATION[name] for name in some(random, list(CONFIGURATION))} or CONFIGURATION
    return fuzzed_json(random, chosen)


def numbered(many: Any, make: Callable[[Random, Any], Any]) -> Callable[[Random], tuple[int, Any]]:
    """The number of one of these, and what is made of it."""

    def made(random: Random) -> tuple[int, Any]:
        index = random.randrange(len(many))
        return index, make(random, many[index])

    return made


def _query_of_filters(random: Random, kind: type[FilterSet]) -> str:
    known = [(name, VALUES.get(name, "1")) for name in kind.base_filters]
    return query_text(random, mutated_query(random, some(random, known) or known))


def _metrics_header(random: Random) -> str | None:
    text = fuzzed_json(random, UPDATE["metrics"]).decode("latin-1")
    return text if random.random() < 0.6 else None


FACTS_IN_QUERY = [("federated_model", "7"), ("base_aggregate", "3"), ("num_examples", "20")]


def parser_targets() -> list[Target]:
    """All of them. Call it when Django is set up, and use them with `enrol_with_jwt`."""
    key_set = json.loads(Path(_key_file()).read_text())
    return [
        Target("json/weights", lambda r: fuzzed_json(r, r.choice(LAYOUTS)), refused(weights_in_json), 14),
        Target("json/weights of a model", lambda r: fuzzed_json(r, LAYOUTS[0]), refused(weights_of_a_model), 16),
        Target("json/facts", lambda r: fuzzed_json(r, UPDATE), refused(facts), 4),
        Target("json/configuration", columns, refused(configuration), 1.5),
        Target("json/schema", lambda r: fuzzed_json(r, SCHEMA), refused(schema), 0.3),
        Target("json/question", lambda r: fuzzed_json(r, r.choice(QUESTIONS)), refused(question), 14),
        Target("json/statistics", numbered(counted(), fuzzed_json), refused(statistics), 10),
        Target("uploads/safetensors", lambda r: body_of(file_of(r), r), refused(receive), 10),
        Target("uploads/quantised", lambda r: body_of(quantised_file(r), r), refused(receive), 3),
        Target("uploads/zstd", compressed, refused(receive), 2),
        Target("uploads/parts", some_parts, refused(parts), 0.5),
        Target("jwt/token", signed_token, refused(read_token), 4),
        Target("jwt/keys", lambda r: fuzzed_json(r, key_set), refused(read_key_set), 0.5),
        Target("filters/lists", numbered(filter_sets(), _query_of_filters), refused(filters), 0.4),
        Target(
            "filters/queries",
            numbered(QUERIES, lambda r, each: query_text(r, mutated_query(r, some(r, each[1]) or each[1]))),
            refused(queries),
            3,
        ),
        Target(
            "filters/facts",
            lambda r: (query_text(r, mutated_query(r, FACTS_IN_QUERY)), _metrics_header(r)),
            refused(facts_in_a_query),
            2,
        ),
        Target("headers/values", header_values, refused(headers), 45),
        Target(
            "invitations/serializers",
            numbered(SERIALIZERS, lambda r, each: fuzzed_json(r, each[1])),
            refused(serialised),
            1,
        ),
    ]  # fmt: skip
