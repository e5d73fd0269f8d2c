"""Requests drawn from the OpenAPI document, sent by a caller of each role: no server error, and no answer beside it.

SCHEMATHESIS_EXAMPLES=50 draws as many requests of each operation, in place of one.
"""

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections, transaction
from hypothesis import HealthCheck, Phase, given, settings

from fma_django.accounts.roles import PRESETS
from fma_django.rates import of_this_process
from tests.api.callers import as_user
from tests.api.test_permissions import EXPECTED, World, make_world
from tests.records import make_user_with

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "1"))
CALLERS = ("anonymous", "registered", "revoked", "owner", "staff", *(role.name for role in PRESETS))
NUM_OPERATIONS = sum(path.startswith(("/api/v1/", "/api-token-auth/")) for _, path in EXPECTED)


@pytest.fixture
def world(db: None) -> World:
    """A world with a caller of each preset."""
    made = make_world()
    for role in PRESETS:
        made.callers[role.name] = as_user(make_user_with(role=role.name))
    return made


@pytest.fixture
def _one_connection() -> Iterator[None]:
    """Let the handler leave the connection alone: it is in the transaction of the test."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@pytest.mark.slow
def test_requests_of_every_role_meet_no_server_error_and_answers_are_as_documented(
    world: World, _one_connection: None
) -> None:
    # Here, because the import takes a second of every process that collects tests.
    import schemathesis
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    @schemathesis.serializer("application/vnd.safetensors", "application/offset+octet-stream")
    def as_bytes(_context: Any, value: Any) -> bytes:
        return value if isinstance(value, bytes) else str(value).encode()

    document = schemathesis.openapi.from_wsgi("/api/schema/?format=json", get_wsgi_application())
    checks = [
        schemathesis.checks.not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_schema_conformance,
    ]
    statuses: dict[str, Counter[int]] = {caller: Counter() for caller in CALLERS}
    num_operations = 0
    for found in document.get_all_operations():

        @settings(max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate],
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(case=found.ok().as_strategy())
        def send(case: Any) -> None:
            meet(case, world)
            for caller in CALLERS:
                of_this_process.forget()
                with transaction.atomic():  # each caller meets the same world
                    answer = case.call_and_validate(headers=headers_of(world, caller), checks=checks)
                    transaction.set_rollback(True)
                statuses[caller][answer.status_code] += 1

        send()
        num_operations += 1
    assert num_operations == NUM_OPERATIONS
    for caller in CALLERS:
        assert statuses[caller].total() >= num_operations
    # The drawn requests get past the first refusal, and each role has some of its own.
    assert statuses["staff"][200] > statuses["anonymous"][200]
    assert sum(statuses["registered"][status] for status in (200, 201, 204)) >= 5


def meet(case: Any, world: World) -> None:
    """Let most of what a path names be there: drawn ids are of nothing."""
    kind = case.path.removeprefix("/api/v1/").split("/")[0]
    known = {"clients": world.client, "uploads": world.upload}.get(kind, world.ids.get(kind))
    values = {"id": known, "number": 1, "user": world.ids["users"]}
    for name in case.path_parameters or ():
        if values.get(name) is not None:
            case.path_parameters[name] = values[name]


def headers_of(world: World, caller: str) -> dict[str, str]:
    api: Any = world.callers[caller]
    said = {name.removeprefix("HTTP_").replace("_", "-"): value for name, value in api.defaults.items()}
    return {"Host": "localhost", **said}
