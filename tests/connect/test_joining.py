"""A client asks for its turn: it keeps the server's pace, and waits no longer than it was told to."""

import copy
import pickle
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from fma_connect import Client, Joined, NotJoined
from fma_connect.exceptions import ConnectionFailed, NotAllowed, NotSelected, ServerFailed, UnexpectedAnswer
from tests.connect.conftest import FakeTime
from tests.connect.scripted_server import DROP, Reply, ScriptedServer, Seen, json_reply

JOIN = "api/v1/models/3/join/"
UPDATES = "api/v1/model_updates/"


@pytest.fixture
def client(server: ScriptedServer, fake_time: FakeTime) -> Iterator[Client]:
    server.on("POST", "api/v1/models/3/register_client/", json_reply({"uuid": "s3cr3t", "id": "c-17"}))
    with Client(
        server.url, 3, credential_file=None, telemetry=False, timeout_s=20, **fake_time.injected
    ) as client:
        yield client


def accepted(**changes: Any) -> Reply:
    said = {"round": 4, "base_aggregate": 7, "client_config": {"epochs": 2}, "deadline_at": None}
    return json_reply({"accepted": True, **said, **changes})


def refused(reason: str = "not_chosen", after_s: int | None = 40) -> Reply:
    said = {"accepted": False, "round": 4, "reason": reason, "detail": "why", "retry_after_s": after_s}
    return json_reply(said)


def held(fake_time: FakeTime, then: Reply) -> Callable[[Seen], Reply]:
    """The server answers only when the time is over that the client may wait."""

    def answer(seen: Seen) -> Reply:
        fake_time.now_s += int(seen.query.get("wait", 0))
        return then

    return answer


def test_accepted_client_knows_its_round(server: ScriptedServer, client: Client) -> None:
    server.on("POST", JOIN, accepted(deadline_at="2026-11-22T05:00:00Z"))

    joined = client.join(timeout_s=60)

    assert joined == Joined(4, 7, {"epochs": 2}, datetime(2026, 11, 22, 5, tzinfo=UTC))
    (asked,) = server.calls("POST", JOIN)
    assert (asked.query, asked.body) == ({"wait": "30"}, b"")
    assert asked.headers["client-uuid"] == "s3cr3t"


def test_config_of_a_joined_round_is_read_only_and_hashing_leaves_it_out(
    server: ScriptedServer, client: Client
) -> None:
    server.on("POST", JOIN, accepted())
    joined = client.join()
    assert joined is not None

    with pytest.raises(TypeError):
        joined.client_config["epochs"] = 3

    assert len({joined, joined}) == 1


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda joined: pickle.loads(pickle.dumps(joined))]
)
def test_joined_can_be_copied_and_pickled(again: Callable[[Joined], Joined]) -> None:
    joined = Joined(4, 7, {"epochs": [1, 2]}, datetime(2026, 11, 22, 5, tzinfo=UTC))

    assert again(joined) == joined
    with pytest.raises(TypeError):
        again(joined).client_config["epochs"] = 3


def test_asking_once_tells_why_not(server: ScriptedServer, client: Client, fake_time: FakeTime) -> None:
    server.on("POST", JOIN, refused())

    assert client.join_once() == NotJoined("not_chosen", "why", 40, 4)
    assert server.calls("POST", JOIN)[0].query == {}
    assert fake_time.sleeps == []


def test_client_asks_again_when_the_server_said(
    server: ScriptedServer, client: Client, fake_time: FakeTime
) -> None:
    server.on("POST", JOIN, refused(after_s=40), refused(after_s=3), accepted())

    joined = client.join(timeout_s=100)

    assert joined is not None
    assert fake_time.sleeps == [40, 3]


def test_waiting_ends_in_time_without_asking_earlier_than_the_server_said(
    server: ScriptedServer, client: Client, fake_time: FakeTime
) -> None:
    server.on("POST", JOIN, refused(after_s=40), accepted())

    assert client.join(timeout_s=25) is None
    assert client.join(timeout_s=10) is None
    assert len(server.calls("POST", JOIN)) == 1

    assert client.join(timeout_s=10) is not None
    assert fake_time.sleeps == [25, 10, 5]


def test_server_may_hold_the_call_for_as_long_as_the_client_waits(
    server: ScriptedServer, client: Client, fake_time: FakeTime
) -> None:
    server.on("POST", JOIN, held(fake_time, refused(after_s=5)))

    assert client.join(timeout_s=50) is None

    assert [seen.query.get("wait") for seen in server.calls("POST", JOIN)] == ["30", "15"]
    assert fake_time.sleeps == [5, 0]


def test_ended_experiment_is_not_waited_for(server: ScriptedServer, client: Client) -> None:
    server.on("POST", JOIN, refused("experiment_ended", after_s=None))

    assert client.join() is None
    assert len(server.calls("POST", JOIN)) == 1


def test_joining_outlives_a_server_that_is_away_for_a_while(server: ScriptedServer, client: Client) -> None:
    away = [DROP] * 8  # longer than one call's time limit
    server.on("POST", JOIN, refused(after_s=1), *away, Reply(503, headers={"Retry-After": "60"}), accepted())

    assert client.join() is not None


def test_joining_a_server_that_was_never_there_fails(server: ScriptedServer, client: Client) -> None:
    server.on("POST", JOIN, DROP)

    with pytest.raises(ConnectionFailed):
        client.join()


def test_joining_says_when_the_server_stayed_away(server: ScriptedServer, client: Client) -> None:
    server.on("POST", JOIN, refused(after_s=1), DROP)

    with pytest.raises(ConnectionFailed):
        client.join(timeout_s=30)


CUTS = [DROP, Reply(504), Reply(502, b"<html>bad gateway</html>"), Reply(524)]


@pytest.fixture(params=[3, 5, 15])
def cuts_at_s(request: pytest.FixtureRequest) -> float:
    return float(request.param)


def behind_a_proxy(fake_time: FakeTime, cuts_at_s: float, cut: Reply, then: Reply) -> Callable[[Seen], Reply]:
    """The proxy ends what takes longer than cuts_at_s; the server holds the call as long as the client waits."""

    def answer(seen: Seen) -> Reply:
        wait_s = int(seen.query.get("wait", 0))
        fake_time.now_s += min(wait_s, cuts_at_s)
        return cut if wait_s > cuts_at_s else then

    return answer


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: str(cut.status))
def test_waiting_behind_a_proxy_that_cuts_it_ends_in_time(
    server: ScriptedServer, client: Client, fake_time: FakeTime, cut: Reply, cuts_at_s: float
) -> None:
    server.on("POST", JOIN, behind_a_proxy(fake_time, cuts_at_s, cut, refused(after_s=1)))
    began_at = fake_time.now_s

    assert client.join(timeout_s=20) is None

    assert fake_time.now_s - began_at <= 20.5
    assert not client.has_ended


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: str(cut.status))
def test_what_a_proxy_lets_through_is_remembered(
    server: ScriptedServer, client: Client, fake_time: FakeTime, cut: Reply, cuts_at_s: float
) -> None:
    server.on("POST", JOIN, behind_a_proxy(fake_time, cuts_at_s, cut, refused(after_s=1)))
    client.join(timeout_s=40)
    server.seen.clear()

    client.join(timeout_s=40)

    waits = [int(seen.query.get("wait", 0)) for seen in server.calls("POST", JOIN)]
    assert 0 < max(waits) <= cuts_at_s


def test_registration_is_part_of_the_time_to_join(
    server: ScriptedServer, client: Client, fake_time: FakeTime
) -> None:
    server.on("POST", "api/v1/models/3/register_client/", Reply(503))
    began_at = fake_time.now_s

    with pytest.raises(ServerFailed):
        client.join(timeout_s=7)

    assert fake_time.now_s - began_at <= 7.5


@pytest.mark.parametrize("cut", [DROP, Reply(504)], ids=["drop", "504"])
def test_time_to_join_is_kept_by_the_real_clock(server: ScriptedServer, cut: Reply) -> None:
    def proxied(seen: Seen) -> Reply:
        wait_s = int(seen.query.get("wait", 0))
        time.sleep(min(wait_s, 1.2))
        return cut if wait_s > 1.2 else refused(after_s=1)

    server.on("POST", "api/v1/models/3/register_client/", json_reply({"uuid": "s3cr3t"}))
    server.on("POST", JOIN, proxied)
    began_at = time.monotonic()
    with Client(server.url, 3, credential_file=None, telemetry=False) as client:
        assert client.join(timeout_s=3.5) is None

    assert 3 < time.monotonic() - began_at < 5


def test_server_that_never_answers_holds_nobody_beyond_the_time_to_join() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        began_at = time.monotonic()
        with (
            Client(url, 3, credential_file=None, uuid="known", telemetry=False) as client,
            pytest.raises(ConnectionFailed),
        ):
            client.join(timeout_s=1.5)

    assert time.monotonic() - began_at < 3.5


def test_end_is_told_from_not_yet(server: ScriptedServer, client: Client) -> None:
    server.on("POST", JOIN, refused(after_s=40), refused("experiment_ended", after_s=None), accepted())

    assert (client.join(timeout_s=10), client.has_ended) == (None, False)
    assert (client.join(), client.has_ended) == (None, True)
    client.join_once()
    assert not client.has_ended  # it was started again


def test_lasting_refusal_is_told(server: ScriptedServer, client: Client) -> None:
    server.on("POST", JOIN, refused(after_s=1), json_reply({"code": "not_registered"}, 403))

    with pytest.raises(NotAllowed, match="not_registered"):
        client.join()


@pytest.mark.parametrize(
    "said",
    [
        {},
        [],
        {"accepted": True},
        {"accepted": False, "reason": "x"},
        {"accepted": True, "round": 1, "base_aggregate": 2, "client_config": {}, "deadline_at": "soon"},
    ],
)
def test_answer_that_is_none_is_unexpected(server: ScriptedServer, client: Client, said: Any) -> None:
    server.on("POST", JOIN, json_reply(said))

    with pytest.raises(UnexpectedAnswer, match="did not say whether"):
        client.join_once()


def test_config_is_that_of_the_joined_round(server: ScriptedServer, client: Client) -> None:
    server.on("POST", JOIN, accepted(), refused())
    client.join_once()
    client.join_once()

    assert client.client_config() == {"epochs": 2}
    assert server.calls("GET", "api/v1/models/3/rounds/") == []


def test_push_names_the_joined_base_when_nothing_was_pulled(server: ScriptedServer, client: Client) -> None:
    server.on("POST", JOIN, accepted())
    server.on("POST", UPDATES, json_reply({"id": 5}, 201))
    client.join_once()

    client.push({"w": np.zeros(2)})

    assert server.calls("POST", UPDATES)[0].query["base_aggregate"] == "7"


def test_update_of_a_client_that_was_not_chosen_is_told(server: ScriptedServer, client: Client) -> None:
    server.on("POST", UPDATES, json_reply({"code": "not_selected", "detail": "not chosen", "round": 4}, 403))

    with pytest.raises(NotSelected) as caught:
        client.push({"w": np.zeros(2)})

    assert caught.value.fields == {"round": 4}
