"""Targets that go through all of Django in this process: mutated requests to every operation, by every kind of caller.

Each batch of requests has a world of its own, so that what one of them deletes is missed by few others. After each
batch its owner reads everything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import got_request_exception
from django.test import override_settings
from django.urls import resolve
from django.utils import timezone

from fma_api.front import django as front
from fma_api.front.environ import environ_of
from fma_api.v1.known_queries import parameters_of
from fma_core.arrays.codecs import zstd
from fma_core.arrays.codecs.safetensors import encode
from fma_django.accounts.tokens import Limits, create_token
from fma_django.clients.invitations import create_invitation
from fma_django.models import Organisation, Upload
from fma_django.record.queries.blobs import named_blobs
from fma_django.storage import get_store
from fma_django.updates.uploads import sweep_uploads
from fma_django.work.sweep import sweep_files
from tests.api.callers import SAFETENSORS
from tests.api.test_permissions import EXPECTED, KEY, PART, World, make_world
from tests.fuzz.campaign import Fault, Target
from tests.fuzz.mutations import (
    Query,
    fuzzed_json,
    json_text,
    mutated_bytes,
    mutated_query,
    mutated_text,
    query_text,
    some,
)
from tests.fuzz.parsers import VALUES, enrol_with_jwt, signed_token
from tests.records import PASSWORD, arrays

API = "/api/v1/"
UPLOADS, UPDATES = f"{API}uploads/", f"{API}model_updates/"
ENDS_THINGS = ("cancel/", "pause/", "close/")
SLOW = ("/api/schema/", "/api/docs/")
RARE = 0.05
HEADERS: Mapping[str, str] = {
    "idempotency-key": "0d3e1c4c-9c39-4d6f-8e9b-3ae8d2a7a3fd",
    "content-digest": "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:",
    "fma-metrics": '{"loss": 0.5}',
    "range": "bytes=0-9",
    "if-none-match": '"a", *',
    "accept": "application/vnd.safetensors, application/json;q=0.5",
    "content-encoding": "zstd",
    "x-http-method-override": "PATCH",
    "origin": "https://example.org",
    "cookie": "sessionid=abc; csrftoken=def",
    "expect": "100-continue",
    "accept-language": "de",
    "host": "localhost",
}
QUERY: Query = [
    ("page", "1"),
    ("page_size", "50"),
    ("ordering", "-created_on"),
    ("format", "json"),
    ("after", "0"),
    ("wait", "0.01"),
    ("source", "training"),
    ("per_client", "true"),
    ("first_round", "1"),
    ("federated_model", "1"),
    ("base_aggregate", "1"),
    ("num_examples", "5"),
    ("upload", "0d3e1c4c-9c39-4d6f-8e9b-3ae8d2a7a3fd"),
    ("user", "1"),
    ("search", "a"),
    *VALUES.items(),
]


@dataclass(frozen=True)
class Request:
    """One request, as the front hands it to Django."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_chunked: bool = False


@dataclass
class Stack:
    """Django, and the world of the present batch."""

    handler: WSGIHandler = field(default_factory=WSGIHandler)
    world: World | None = None
    invitation: str = ""
    credentials: dict[str, dict[str, str]] = field(default_factory=dict)
    num_worlds: int = 0
    broken: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        got_request_exception.connect(self._note, weak=False)
        sweep_files()  # the first one says whose the store is
        Organisation.objects.get_or_create(name="hospital")  # which tokens name

    def _note(self, **_: Any) -> None:
        import sys

        error = sys.exc_info()[1]
        if error is not None:
            self.broken.append(error)

    def renew(self) -> World:
        """Begin a batch."""
        cache.clear()
        self.num_worlds += 1
        world = self.world = make_world(f"-{timezone.now():%H%M%S%f}-{self.num_worlds}")
        self.credentials = {
            name: {key.lower(): value for key, value in cast("Any", caller)._headers.items()}
            if hasattr(caller, "_headers")
            else _headers_of(caller)
            for name, caller in world.callers.items()
        }
        owner = User.objects.get(pk=world.model.developer_id)
        for scope in ("read", "write"):
            token = create_token(owner, scope, Limits(scope))[1]
            self.credentials[scope] = {"authorization": f"Token {token}"}
        of_model = create_token(owner, "model", Limits("write", world.model))[1]
        self.credentials["of model"] = {"authorization": f"Token {of_model}"}
        _, self.invitation = create_invitation(by=None, models=[world.model.pk], uses=10_000)
        return world

    def send(self, request: Request) -> tuple[int, bytes]:
        """The status and the body of the answer. Raises the error behind a 5xx, and Fault for one without."""
        self.broken.clear()
        status, body = self.answer(request)
        if status >= 500 or self.broken:
            if self.broken:
                raise self.broken[0]
            raise Fault(f"{status} {body[:300]!r}")
        return status, body

    def answer(self, request: Request) -> tuple[int, bytes]:
        said = {"host": "localhost", **request.headers}
        if request.is_chunked:
            said["transfer-encoding"] = "chunked"
        elif request.body and "content-length" not in said:
            said["content-length"] = str(len(request.body))
        scope = SimpleNamespace(
            path=request.path,
            server="127.0.0.1:8000",
            client="127.0.0.1:5000",
            method=request.method,
            query_string=request.query,
            http_version="1.1",
            scheme="http",
            headers=SimpleNamespace(items=lambda: list(said.items())),
        )
        environ = {**environ_of(cast("Any", scope)), "wsgi.input": BytesIO(request.body)}
        response: Any = front.answer(self.handler, environ)
        try:
            return response.status_code, b"".join(response)
        finally:
            response.close()


def _headers_of(caller: Any) -> dict[str, str]:
    """The headers that an APIClient sends with each request."""
    return {
        name.removeprefix("HTTP_").replace("_", "-").lower(): value
        for name, value in caller.defaults.items()
        if name.startswith("HTTP_")
    }


def rows_of(kind: str) -> list[tuple[str, str]]:
    """The operations that a kind of input goes to."""
    chosen: dict[str, Callable[[str, str], bool]] = {
        "json": lambda method, _: method in ("POST", "PUT", "PATCH"),
        "filters": lambda method, _: method == "GET",
        "uploads": lambda _, path: path.startswith((UPLOADS, UPDATES)) or "initial_model" in path,
        "invitations": lambda _, path: path.startswith(f"{API}invitations/") or "register_client" in path,
        "tokens": lambda _, path: path.startswith((f"{API}tokens/", "/api-token-auth/", f"{API}me/")),
        "headers": lambda *_: True,
        "jwt": lambda _, path: "register_client" in path,
    }
    # Without a worker the server is not ready, and says so with 503.
    return [row for row in EXPECTED if chosen[kind](*row) and row[1] not in ("/", "/readyz")]


def request_of(random: Random, stack: Stack, kind: str) -> Request:
    """A valid request of this kind, and something in it that is not."""
    world = stack.world
    assert world is not None
    rows = rows_of(kind)
    method, path = random.choice(rows)
    while (method == "DELETE" or path.endswith(ENDS_THINGS) or path in SLOW) and random.random() > RARE:
        method, path = random.choice(rows)
    allowed = [name for name, status in EXPECTED[method, path].items() if status < 300]
    caller = random.choice(allowed if allowed and random.random() < 0.85 else list(stack.credentials))
    headers = {**stack.credentials[caller], **KEY.get((path), {})}
    url, _, facts = world.url(path).partition("?")
    query: Query = [pair for part in facts.split("&") if (pair := part.split("=")) and len(pair) == 2]  # type: ignore[misc]
    body, content_type = _body(random, world, method, path, query, kind)
    if content_type:
        headers["content-type"] = content_type
    if path.startswith(UPLOADS):
        headers |= {"tus-resumable": "1.0.0", "upload-length": "400", "upload-offset": "0"}
        if random.random() < 0.6:
            name = random.choice(["tus-resumable", "upload-length", "upload-offset"])
            headers[name] = mutated_text(random, headers[name])
        if random.random() < 0.2:
            headers["upload-checksum"] = mutated_text(random, "sha256 " + HEADERS["content-digest"][9:-1])
    if kind == "filters" or random.random() < 0.15:
        # A parameter that the operation does not take is refused before the others are looked at.
        known = [pair for pair in QUERY if pair[0] in _parameters(url, method)]
        query = mutated_query(random, query + some(random, known if random.random() < 0.9 else QUERY))
    if kind == "headers" or random.random() < 0.1:
        for name in random.sample(list(HEADERS), random.choice((1, 1, 2, 4))):
            headers[name] = mutated_text(random, HEADERS[name]) if random.random() < 0.7 else HEADERS[name]
    if kind == "tokens" and random.random() < 0.5:
        for name, value in stack.credentials[caller].items():
            headers[name] = mutated_text(random, value)
    if kind == "invitations" and "register_client" in path:
        headers = {"fma-invitation": stack.invitation}
        if random.random() < 0.5:
            headers["fma-invitation"] = mutated_text(random, stack.invitation)
    if kind == "jwt":
        headers = {"authorization": f"Bearer {signed_token(random)}"}
    if random.random() < 0.05:
        url = mutated_text(random, url)
    if random.random() < 0.05:
        headers["content-length"] = mutated_text(random, str(len(body)))
    return Request(
        method=method
        if random.random() > 0.02
        else random.choice(["HEAD", "OPTIONS", "PUT", "TRACE", "X", "get"]),
        path=url.encode(errors="replace").decode(),
        query=query_text(random, query),
        headers={name: _in_latin1(value) for name, value in headers.items()},
        body=body,
        is_chunked=bool(body) and random.random() < 0.05,
    )


def _parameters(url: str, method: str) -> frozenset[str]:
    """The names that the query of an operation may have."""
    view = resolve(url).func
    return parameters_of(view, method) if hasattr(view, "cls") else frozenset()


def _in_latin1(value: str) -> str:
    return (
        value.encode("utf-8", "replace")
        .decode("latin-1")
        .replace("\0", "")
        .replace("\r", "")
        .replace("\n", "")
    )


def _body(random: Random, world: World, method: str, path: str, query: Query, kind: str) -> tuple[bytes, str]:
    """A body for the operation, mutated or as it should be, and its content type."""
    valid = world.bodies.get((method, path))
    is_of_weights = path in (UPDATES, f"{API}models/<pk>/initial_model/")
    if method == "POST" and is_of_weights and random.random() < (0.8 if kind == "uploads" else 0.2):
        if path == UPDATES:
            base = cast("Any", valid)["base_aggregate"]
            query += [("federated_model", str(world.model.pk)), ("base_aggregate", str(base))]
        file = encode(arrays(random.choice((1.0, 2.0, random.random()))))
        if random.random() < 0.2:
            return b"".join(zstd.encoded([file])), SAFETENSORS
        return (mutated_bytes(random, file) if random.random() < 0.7 else file), SAFETENSORS
    if isinstance(valid, bytes):
        return mutated_bytes(random, valid), PART if random.random() < 0.9 else "text/plain"
    if valid is None:
        return (b"", "") if random.random() < 0.9 else (fuzzed_json(random, {"a": [1]}), "application/json")
    if path == "/api-token-auth/" and random.random() < 0.3:
        form = [("username", valid["username"]), ("password", PASSWORD)]
        return query_text(random, mutated_query(random, form)).encode(), "application/x-www-form-urlencoded"
    is_mutated = random.random() < (0.85 if kind in ("json", "tokens", "invitations") else 0.3)
    text = (
        fuzzed_json(random, _more_of(random, method, path, valid)) if is_mutated else json_text(random, valid)
    )
    return text, "application/json" if random.random() < 0.97 else random.choice(["text/plain", "", "x/y; ="])


def _more_of(random: Random, method: str, path: str, valid: Any) -> Any:
    """A body with more of the members that the operation takes: without them their parsers are never reached."""
    from tests.fuzz.parsers import CONFIGURATION, QUESTIONS, SERIALIZERS

    if path == UPDATES:
        return {**valid, "num_examples": 5, "metrics": {"loss": 0.5, "by": {"class": [1, 2]}}}
    if path.startswith(f"{API}models/") and method in ("POST", "PUT", "PATCH") and path.count("/") <= 5:
        names = [name for name in CONFIGURATION if name not in ("aggregator", "spec")]
        return {
            **valid,
            **{name: CONFIGURATION[name] for name in random.sample(names, random.choice((1, 2)))},
        }
    if path.endswith("/telemetry/"):
        return SERIALIZERS[0][1]
    if path.endswith("/evaluations/"):
        return {**valid, "question": random.choice(QUESTIONS)}
    if path.startswith(f"{API}invitations/"):
        return {**valid, "uses": 3, "tags": ["gpu"], "expires_on": "2030-01-01T00:00:00Z"}
    if path.startswith(f"{API}tokens/"):
        return {"name": f"t{random.random()}", "scope": "write", "expires_on": "2030-01-01T00:00:00Z"}
    if path.endswith("/client_aggregate_scores/"):
        return {**valid, "validation_results": {"loss": 0.5, "deep": {"of": [1, 2.5]}}}
    if path.startswith(f"{API}users/") and method == "POST":
        return {
            "username": f"u{random.random()}",
            "email": "a@example.org",
            "password": PASSWORD,
            "roles": [],
        }
    return valid


def stack_targets(storage: Path) -> tuple[list[Target], Callable[[], None]]:
    """A target for each kind of input, and the look at what they have left; all share one Django.

    storage: the folder of the store.
    """
    stack = Stack()

    def make(kind: str) -> Callable[[Random], Request]:
        return lambda random: request_of(random, stack, kind)

    def feed(request: Request) -> str:
        status, body = stack.send(request)
        if status < 400:
            return str(status)
        try:
            return f"{status} {json.loads(body)['code']}"
        except (ValueError, TypeError, KeyError):
            return f"{status} without a code"

    def feed_jwt(request: Request) -> str:
        with enrol_with_jwt():
            return feed(request)

    def look() -> None:
        try:
            require_readable(stack)
            require_nothing_left(storage)
        finally:
            stack.renew()

    stack.renew()
    kinds = {"json": 6, "filters": 4, "uploads": 4, "headers": 4, "tokens": 3, "invitations": 2, "jwt": 1}
    targets = [
        Target(f"{kind}/stack", make(kind), feed_jwt if kind == "jwt" else feed, share)
        for kind, share in kinds.items()
    ]
    return targets, look


BELOW_A_MODEL = (
    "rounds/",
    "history/",
    "metrics/",
    "metrics/?per_client=true",
    "metrics/?format=csv",
    "participation/",
    "client_errors/",
    "evaluations/",
)
BELOW: Mapping[str, tuple[str, ...]] = {
    "models": BELOW_A_MODEL,
    "model_updates": ("weights/",),
    "model_aggregates": ("weights/",),
    "model_artifacts": ("weights/",),
    "clients": ("telemetry/", "errors/", "participation/"),
}
SHOWN = 12
"""So many of the newest rows of a list are read one by one."""


def require_readable(stack: Stack) -> None:
    """Require that the owner, the client and the installation's owner can read all lists and details."""
    for caller in ("owner", "registered", "staff"):
        lists = [
            path for method, path in EXPECTED if method == "GET" and path.startswith(API) and "<" not in path
        ]
        for path in lists:
            if EXPECTED["GET", path][caller] != 200 or "speed-test" in path:
                continue
            has_pages = "page_size" in _parameters(path, "GET")
            rows = _read(stack, caller, path, "page_size=200" if has_pages else "")
            kind = path.removeprefix(API).rstrip("/")
            if (
                not isinstance(rows, list)
                or ("GET", f"{path}<pk>/") not in EXPECTED
                or caller == "registered"
            ):
                continue
            for row in rows[: SHOWN if caller == "owner" else 3]:
                _read(stack, caller, f"{path}{row['id']}/")
                for more in BELOW.get(kind, ()):
                    below, _, query = f"{path}{row['id']}/{more}".partition("?")
                    _read(stack, caller, below, query)


def _read(stack: Stack, caller: str, path: str, query: str = "") -> Any:
    headers = {**stack.credentials[caller], "accept": "*/*"}
    status, body = stack.answer(Request("GET", path, query, headers))
    if status != 200:
        raise Fault(f"{caller} cannot read {path}?{query}: {status} {body[:300]!r}")
    if "csv" in query:
        body.decode()
        return None
    return json.loads(body, parse_constant=_no_constant)


def _no_constant(text: str) -> None:
    raise Fault(f"an answer holds {text}, which is not JSON")


def require_nothing_left(storage: Path) -> None:
    """Require that the spool has the parts of present uploads alone, and the store what rows name alone."""
    with override_settings(FMA_ORPHAN_GRACE_SECONDS=0):
        sweep_uploads()
        for _ in range(2):
            sweep_files()
    uploads = {pk.hex for pk in Upload.objects.values_list("pk", flat=True)}
    spooled = [path for path in (storage / ".spool").rglob("*") if path.is_file() and ".part" in path.name]
    left = [path for path in spooled if path.name.partition(".")[0] not in uploads]
    if left:
        raise Fault(f"files are left in the spool: {left[:5]}")
    blobs = [blob.sha256 for blob in get_store().blobs()]
    unnamed = [sha256 for start in range(0, len(blobs), 500) for sha256 in blobs[start : start + 500]]
    named: set[str] = set()
    for start in range(0, len(unnamed), 500):
        named |= named_blobs(unnamed[start : start + 500])
    if set(blobs) - named:
        raise Fault(f"the store has files that no row names: {sorted(set(blobs) - named)[:5]}")
