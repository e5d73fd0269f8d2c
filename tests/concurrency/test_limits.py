"""Every limit, tried by two hundred callers at once: as many get through as it says, and no one more.

Limits of JSON's memory: tests/api/test_json_memory.py; of invitations: tests/concurrency/test_enrolment.py.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from django.test import RequestFactory
from pytest_django import Settings
from rest_framework.exceptions import Throttled

from fma_api.front.body_places import BodyPlaces, NoPlace
from fma_api.front.waiting_room import PER_CLIENT, Outcome, WaitingRoom
from fma_api.sender_address import network_of
from fma_api.v1.clients.credential import CredentialsPerHour
from fma_api.v1.limits import (
    AT_ONCE,
    PLACES,
    PLACES_PER_ADDRESS,
    Guesses,
    PasswordPlaces,
    PerHour,
    count_registration,
)
from fma_api.v1.reports.limits import ErrorsPerHour, SpeedTestsPerHour, TelemetryPerHour
from fma_django.accounts import tokens
from fma_django.accounts.tokens import Limits, create_token
from fma_django.clients.registration import register_client
from fma_django.errors import InvalidValue, ModelFull, RateExceeded, RoundFull, TooManyUploads
from fma_django.models import ApiToken, Client, Upload
from fma_django.rates import of_this_process
from fma_django.updates.in_parts import begin_update
from fma_django.updates.intake import UpdateFacts
from fma_django.updates.rates import count_update
from tests.api.callers import stored_files
from tests.api.conftest import storage  # noqa: F401  # autouse
from tests.concurrency.test_enrolment import in_turns
from tests.records import make_client, make_model, make_user, send_update, weights

pytestmark = pytest.mark.untraced

CALLERS = 200
ANN = UUID("0d3e1c4c-9c39-4d6f-8e9b-3ae8d2a7a3fd")
# So that nothing comes back while a test runs.
A_DAY = 86_400


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    of_this_process.forget()
    yield
    of_this_process.forget()


def at_once(call: Callable[[], Any], refusal: type[Exception]) -> int:
    """The number of two hundred calls at once that get through; the others meet this refusal."""
    start = threading.Barrier(CALLERS)

    def run(_: int) -> bool:
        start.wait()
        try:
            call()
        except refusal:
            return False
        return True

    with ThreadPoolExecutor(CALLERS) as pool:
        return sum(pool.map(run, range(CALLERS)))


_addresses = count(1)


def from_anywhere() -> Any:
    """A request from an address that nobody else has."""
    number = next(_addresses)
    return RequestFactory().post("/", REMOTE_ADDR=f"10.0.{number // 250}.{number % 250}")


def from_one_place() -> Any:
    return RequestFactory().post("/", REMOTE_ADDR="10.9.9.9")


def require_one_of(kind: type[PerHour]) -> None:
    if not kind().allow_request(SimpleNamespace(user=Client(pk=ANN)), None):  # type: ignore[arg-type]
        raise Throttled


# The name of a setting and its value, a call that it limits, the refusal, and the calls that get through.
RATES: dict[str, tuple[str, Any, Callable[[], object], type[Exception], int]] = {
    "passwords of one address": (
        "FMA_LOGIN_RATE", (30, A_DAY), lambda: Guesses(from_one_place(), account=next(_addresses)).count(),
        Throttled, 30,
    ),
    "passwords of one account": (
        "FMA_LOGIN_RATE", (30, A_DAY), lambda: Guesses(from_anywhere(), account="alice").count(), Throttled, 30,
    ),
    "enrolment tokens": (
        "FMA_LOGIN_RATE", (7, A_DAY), lambda: Guesses(from_one_place(), of="enrolment tokens").count(), Throttled, 7,
    ),
    "registrations": (
        "FMA_REGISTRATION_RATE", (60, A_DAY), lambda: count_registration(from_one_place()), Throttled, 60,
    ),
    "updates of a client": (
        "FMA_CLIENT_UPDATE_RATE", (20, A_DAY), lambda: count_update(next(_addresses), ANN, 1), RateExceeded, 20,
    ),
    "bytes of a client": (
        "FMA_CLIENT_BYTE_RATE", (1000, A_DAY), lambda: count_update(next(_addresses), ANN, 100), RateExceeded, 10,
    ),
    "updates of a model": (
        "FMA_MODEL_UPDATE_RATE", (20, A_DAY), lambda: count_update(1, UUID(int=next(_addresses)), 1), RateExceeded, 20,
    ),
    "bytes of a model": (
        "FMA_MODEL_BYTE_RATE", (1000, A_DAY), lambda: count_update(1, UUID(int=next(_addresses)), 40), RateExceeded, 25,
    ),
    **{
        kind.name: ("FMA_LOG_LEVEL", "INFO", partial(require_one_of, kind), Throttled, kind.most)
        for kind in (TelemetryPerHour, ErrorsPerHour, SpeedTestsPerHour, CredentialsPerHour)
    },
}  # fmt: skip


@pytest.mark.parametrize("what", RATES)
def test_a_rate(what: str, settings: Settings) -> None:
    setting, value, call, refusal, most = RATES[what]
    setattr(settings, setting, value)

    assert at_once(call, refusal) == most
    with pytest.raises(refusal):
        call()


def test_passwords_that_are_checked_at_one_time() -> None:
    assert checked(from_anywhere) == (AT_ONCE, PLACES)


def test_passwords_of_one_address_that_are_checked_at_one_time() -> None:
    assert checked(from_one_place) == (1, PLACES_PER_ADDRESS)


def checked(request: Callable[[], Any]) -> tuple[int, int]:
    """The passwords that were checked at one time, and the calls that got a place before any was ready."""
    places, inside, most, lock, all_came = PasswordPlaces(), 0, 0, threading.Lock(), threading.Event()
    refused = 0

    def check() -> None:
        nonlocal inside, most, refused
        try:
            with places.place(network_of(request().META["REMOTE_ADDR"])):
                with lock:
                    inside += 1
                    most = max(most, inside)
                all_came.wait(10)
                with lock:
                    inside -= 1
        except Throttled:
            with lock:
                refused += 1
                if refused == CALLERS - (PLACES if request is from_anywhere else PLACES_PER_ADDRESS):
                    all_came.set()
            raise

    through = at_once(check, Throttled)
    return most, through


@pytest.mark.parametrize(
    ("address", "client", "most"),
    [(lambda _: "10.0.0.1", lambda _: None, 8), (lambda n: f"10.0.0.{n}", lambda _: "ann", 4),
     (lambda n: f"10.0.0.{n}", lambda n: f"{n}", 12), (lambda n: f"2001:db8::{n:x}", lambda _: None, 8)],
    ids=["of one address", "of one client", "of all", "of one network"],
)  # fmt: skip
def test_places_of_bodies(
    monkeypatch: pytest.MonkeyPatch,
    address: Callable[[int], str],
    client: Callable[[int], str | None],
    most: int,
) -> None:
    monkeypatch.setattr("fma_api.front.body_places.WAIT_S", 1.0)
    found = asyncio.run(_place_all(address, client))

    assert found == (most, CALLERS - most)


async def _place_all(address: Callable[[int], str], client: Callable[[int], str | None]) -> tuple[int, int]:
    """The most places that were taken at one time, and the number of those who got none."""
    places = BodyPlaces(most=12, per_address=8, per_client=4)
    inside = most = without = 0
    all_know = asyncio.Event()

    async def send(number: int) -> None:
        nonlocal inside, most, without
        try:
            async with places.place(address(number), client(number)):
                inside += 1
                most = max(most, inside)
                await all_know.wait()
        except NoPlace:
            without += 1
            if inside + without == CALLERS:
                all_know.set()

    await asyncio.gather(*map(send, range(CALLERS)))
    return most, without


@pytest.mark.parametrize(
    ("address", "client", "taken"),
    [
        (lambda n: f"192.0.2.{n}", lambda n: f"client {n}", 80),
        (lambda n: "192.0.2.1", lambda n: f"client {n}", 60),
        (lambda n: f"192.0.2.{n}", lambda n: "one client", PER_CLIENT),
    ],
    ids=["all together", "one address", "one client"],
)
def test_places_in_the_waiting_room(
    address: Callable[[int], str], client: Callable[[int], str], taken: int
) -> None:
    class Exchange:
        async def client_disconnect(self) -> None:
            await asyncio.Event().wait()

    async def wait_all() -> list[Outcome]:
        loop = asyncio.get_running_loop()
        room = WaitingRoom(loop, places=80)
        exchange: Any = Exchange()
        until = loop.time() + 0.3
        waits = [
            room.wait(exchange, [f"model:{n}"], since=0, until=until, address=address(n), client=client(n))
            for n in range(CALLERS)
        ]
        outcomes = await asyncio.gather(*waits)
        assert room.takes_more_of(address(0), client(0)), "all places are free again"
        return outcomes

    outcomes = asyncio.run(wait_all())

    assert (outcomes.count(Outcome.TIME), outcomes.count(Outcome.NO_PLACE)) == (taken, CALLERS - taken)


@pytest.mark.django_db(transaction=True)
def test_tokens_of_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MAX_TOKENS", 10)
    alice, names = make_user(), count()

    results = in_turns(lambda: create_token(alice, f"token {next(names)}", Limits()), CALLERS)

    assert {type(result) for result in results} == {tuple, InvalidValue}
    assert ApiToken.objects.filter(user=alice).count() == 10


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("setting", "value", "most"), [("FMA_MAX_UPLOADS", 5, 5), ("FMA_MAX_UPLOADING_BYTES", 1000, 3)]
)
def test_uploads_of_a_client(settings: Settings, setting: str, value: int, most: int, storage: Any) -> None:  # noqa: F811
    setattr(settings, setting, value)
    model = make_model(initial_model=weights())
    ann = make_client(model).client
    before = stored_files(storage)

    results = in_turns(lambda: begin_update(model, ann, 300, UpdateFacts()), CALLERS)

    assert {type(result) for result in results} == {Upload, TooManyUploads}
    assert Upload.objects.count() == len(stored_files(storage)) - len(before) == most


@pytest.mark.django_db(transaction=True)
def test_clients_of_a_model(settings: Settings) -> None:
    settings.FMA_MAX_CLIENTS_PER_MODEL = 5
    model = make_model()

    results = in_turns(partial(register_client, model), CALLERS)

    assert sum(isinstance(result, ModelFull) for result in results) == CALLERS - 5
    assert Client.objects.count() == model.clients.count() == 5


@pytest.mark.django_db(transaction=True)
def test_updates_of_a_round() -> None:
    model = make_model(initial_model=weights(), round_policy={"max_updates": 5}, allow_aggregation=False)
    people = iter([make_client(model).client for _ in range(CALLERS)])
    lock = threading.Lock()

    def send() -> Any:
        with lock:
            client = next(people)
        return send_update(model, client)

    results = in_turns(send, CALLERS)

    assert sum(isinstance(result, RoundFull) for result in results) == CALLERS - 5
    assert model.rounds.get().num_updates == model.model_updates.count() == 5
