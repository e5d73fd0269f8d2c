"""The waits for news are alike: as long as the server may hold back, shorter behind proxies that cut, over in time."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from fma_connect import Client, DeveloperClient
from fma_connect.exceptions import ConnectionFailed, NotAllowed
from tests.connect.conftest import FakeTime
from tests.connect.recording import Recording
from tests.connect.scripted_server import DROP, Reply, ScriptedServer, Seen, json_reply

REGISTER = "api/v1/models/3/register_client/"
JOIN = "api/v1/models/3/join/"
LATEST = "api/v1/models/3/get_latest_model/"
EVALUATIONS = "api/v1/evaluations/"
ROUNDS = "api/v1/models/3/rounds/"
NOT_YET = json_reply(
    {"accepted": False, "round": 4, "reason": "not_chosen", "detail": "why", "retry_after_s": 1}
)

Answering = Callable[[Seen], Reply]


class Waits:
    """One kind of wait: how it is called, where it asks, and the server's answer without news."""

    def __init__(
        self, call: Callable[["Caller", float], Any], method: str, path: str, nothing: Reply, longest_s: int
    ) -> None:
        self.call = call
        self.method = method
        self.path = path
        self.nothing = nothing
        self.longest_s = longest_s


class Caller:
    """Both clients of one server, with the same clock."""

    def __init__(self, server: ScriptedServer, fake_time: FakeTime, http: httpx.BaseTransport | None) -> None:
        options: dict[str, Any] = {"timeout_s": 20, "http": http, **fake_time.injected}
        self.client = Client(server.url, 3, credential_file=None, telemetry=False, **options)
        self.developer = DeveloperClient(server.url, token="t0ken", **options)


KINDS = {
    "join": Waits(lambda caller, s: caller.client.join(timeout_s=s), "POST", JOIN, NOT_YET, 30),
    "wait_for_next": Waits(
        lambda caller, s: caller.client.wait_for_next(timeout_s=s), "GET", LATEST, Reply(204), 30
    ),
    "evaluations": Waits(
        lambda caller, s: caller.client.evaluations(wait_s=int(s)) or None,
        "GET",
        EVALUATIONS,
        json_reply([]),
        60,
    ),
    "watch": Waits(
        lambda caller, s: list(caller.developer.watch(3, timeout_s=s)) or None, "GET", LATEST, Reply(204), 10
    ),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, server: ScriptedServer) -> Waits:
    server.on("POST", REGISTER, json_reply({"uuid": "s3cr3t", "id": "c-17"}))
    server.on("GET", ROUNDS, json_reply([]))
    return KINDS[request.param]


@pytest.fixture
def caller(server: ScriptedServer, fake_time: FakeTime) -> Iterator[Caller]:
    caller = Caller(server, fake_time, None)
    yield caller
    caller.client.close()
    caller.developer.close()


def waits_of(server: ScriptedServer, kind: Waits) -> list[int]:
    return [int(seen.query.get("wait", 0)) for seen in server.calls(kind.method, kind.path)]


def held(fake_time: FakeTime, then: Reply) -> Answering:
    def answer(seen: Seen) -> Reply:
        fake_time.now_s += int(seen.query.get("wait", 0))
        return then

    return answer


def after(fake_time: FakeTime, seconds: float, then: Reply) -> Answering:
    def answer(seen: Seen) -> Reply:
        fake_time.now_s += seconds
        return then

    return answer


def test_answer_is_awaited_for_longer_than_the_server_holds_it_back(
    server: ScriptedServer, fake_time: FakeTime, kind: Waits
) -> None:
    http = Recording()
    server.on(kind.method, kind.path, held(fake_time, kind.nothing))

    kind.call(Caller(server, fake_time, http), 60)

    waits = waits_of(server, kind)
    assert waits[0] == kind.longest_s
    # The first wait has the most time: the client's timeout_s more, unless the caller's time ends sooner.
    most_s = max(timeouts["read"] for timeouts in http.first_timeouts)
    assert most_s >= min(kind.longest_s + 20, 61)


@pytest.mark.parametrize(
    "cut", [DROP, *(Reply(status) for status in (408, 499, 502, 504, 524))], ids=lambda cut: str(cut.status)
)
def test_wait_that_is_cut_is_no_error_and_the_next_ones_are_shorter(
    server: ScriptedServer, fake_time: FakeTime, caller: Caller, kind: Waits, cut: Reply
) -> None:
    def proxied(seen: Seen) -> Reply:
        wait_s = int(seen.query.get("wait", 0))
        fake_time.now_s += min(wait_s, 5)
        return cut if wait_s > 5 else kind.nothing

    server.on(kind.method, kind.path, proxied)
    began_at = fake_time.now_s

    assert kind.call(caller, 40) is None
    assert kind.call(caller, 40) is None

    assert fake_time.now_s - began_at <= 81
    assert [wait_s for wait_s in waits_of(server, kind) if wait_s > 5] == [min(kind.longest_s, 40)]


@pytest.mark.parametrize(
    "failure", [DROP, *(Reply(status) for status in (408, 499, 504))], ids=lambda failure: str(failure.status)
)
def test_what_happens_before_the_wait_is_no_part_of_it(
    server: ScriptedServer, fake_time: FakeTime, caller: Caller, kind: Waits, failure: Reply
) -> None:
    slow = after(fake_time, 5, json_reply({"uuid": "s3cr3t", "id": "c-17"}))
    server.on("POST", REGISTER, slow)
    server.on("GET", ROUNDS, after(fake_time, 5, json_reply([])), json_reply([]))
    server.on(kind.method, kind.path, failure, held(fake_time, kind.nothing))

    assert kind.call(caller, 60) is None

    assert max(waits_of(server, kind)[1:]) >= min(kind.longest_s, 40)


@pytest.mark.parametrize(
    "error", [httpx.ProxyError, httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadTimeout, httpx.WriteError]
)
def test_failure_that_is_no_cut_shortens_no_wait(
    server: ScriptedServer, fake_time: FakeTime, kind: Waits, error: type[httpx.TransportError]
) -> None:
    class FailsOnce(httpx.HTTPTransport):
        has_failed = False

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if "wait" in request.url.params and not self.has_failed:
                self.has_failed = True
                fake_time.now_s += 4
                raise error("503 Service Unavailable")
            return super().handle_request(request)

    server.on(kind.method, kind.path, held(fake_time, kind.nothing))

    assert kind.call(Caller(server, fake_time, FailsOnce(trust_env=False)), 60) is None

    assert max(waits_of(server, kind)) >= min(kind.longest_s, 50)


def test_answer_that_breaks_off_shortens_no_wait(
    server: ScriptedServer, fake_time: FakeTime, caller: Caller
) -> None:
    broken = Reply(200, bytes(100), {"FMA-Aggregate": "8"}, truncate_to=40)
    server.on("POST", REGISTER, json_reply({"uuid": "s3cr3t", "id": "c-17"}))
    server.on("GET", LATEST, after(fake_time, 5, broken), held(fake_time, Reply(204)))

    assert caller.client.wait_for_next(timeout_s=60) is None

    assert max(int(seen.query["wait"]) for seen in server.calls("GET", LATEST)[1:]) == 30


def test_server_that_holds_nothing_back_is_not_asked_in_a_hot_loop(
    server: ScriptedServer, fake_time: FakeTime, caller: Caller, kind: Waits
) -> None:
    server.on(kind.method, kind.path, kind.nothing)

    assert kind.call(caller, 60) is None

    # In `join` the server itself says when to ask again: in a second.
    assert 5 < len(waits_of(server, kind)) <= 61
    assert min(fake_time.sleeps[:-1]) >= 0.2


def test_server_that_wants_to_be_asked_at_once_is_not_asked_in_a_hot_loop(
    server: ScriptedServer, fake_time: FakeTime, caller: Caller
) -> None:
    said = {"accepted": False, "round": 4, "reason": "not_chosen", "detail": "why", "retry_after_s": 0}
    server.on("POST", REGISTER, json_reply({"uuid": "s3cr3t", "id": "c-17"}))
    server.on("POST", JOIN, json_reply(said))

    assert caller.client.join(timeout_s=10) is None

    assert len(server.calls("POST", JOIN)) <= 51


@pytest.mark.parametrize("status", [408, 499, 503, 504, 522])
def test_failure_at_once_is_retried_with_growing_pauses(
    server: ScriptedServer, fake_time: FakeTime, caller: Caller, kind: Waits, status: int
) -> None:
    failures = [Reply(status)] * 5
    server.on(kind.method, kind.path, *failures, held(fake_time, kind.nothing))

    assert kind.call(caller, 60) is None

    assert len(fake_time.sleeps) >= len(failures)
    assert max(fake_time.sleeps) > 1


def test_server_that_stays_away_is_told_at_the_end_of_the_time(
    server: ScriptedServer, fake_time: FakeTime, caller: Caller, kind: Waits
) -> None:
    server.on(kind.method, kind.path, DROP)
    began_at = fake_time.now_s

    with pytest.raises(ConnectionFailed):
        kind.call(caller, 15)

    assert 14 <= fake_time.now_s - began_at <= 16
    assert 2 < len(waits_of(server, kind)) < 30


def test_lasting_refusal_ends_the_wait(server: ScriptedServer, caller: Caller, kind: Waits) -> None:
    server.on(kind.method, kind.path, json_reply({"code": "not_registered", "detail": "who?"}, 403))

    with pytest.raises(NotAllowed):
        kind.call(caller, 15)

    assert len(waits_of(server, kind)) == 1


def test_who_gives_no_time_asks_once(server: ScriptedServer, caller: Caller, kind: Waits) -> None:
    if kind.path == LATEST and kind.longest_s == 10:
        kind = Waits(kind.call, "GET", ROUNDS, kind.nothing, 0)  # a watch looks at the rounds instead
    else:
        server.on(kind.method, kind.path, kind.nothing)

    assert kind.call(caller, 0) is None

    assert 1 <= len(waits_of(server, kind)) <= 2
