from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from fma_connect import DeveloperClient
from fma_connect.exceptions import (
    ExperimentEnded,
    InvalidArgument,
    InvalidRequest,
    NotFound,
    ServerFailed,
    UnexpectedAnswer,
)
from fma_core.arrays.codecs import safetensors
from tests.connect.conftest import FakeTime
from tests.connect.scripted_server import DROP, Reply, ScriptedServer, Seen, json_reply

MakeClient = Callable[..., DeveloperClient]


@pytest.fixture
def make(server: ScriptedServer, fake_time: FakeTime) -> Iterator[MakeClient]:
    made: list[DeveloperClient] = []

    def make(**changes: Any) -> DeveloperClient:
        made.append(DeveloperClient(server.url, **fake_time.injected, **(changes or {"token": "t0ken"})))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def developer(make: MakeClient) -> DeveloperClient:
    return make()


def test_token_goes_with_every_call(server: ScriptedServer, developer: DeveloperClient) -> None:
    server.on("GET", "api/v1/me/", json_reply({"kind": "user"}))

    assert developer.me() == {"kind": "user"}
    assert server.seen[0].headers["authorization"] == "Token t0ken"


def test_password_is_exchanged_for_a_token_once(server: ScriptedServer, make: MakeClient) -> None:
    server.on("POST", "api-token-auth/", json_reply({"token": "fresh"}))
    server.on("GET", "api/v1/me/", json_reply({}))

    with make(username="ann", password="hunter2") as developer:
        developer.me()
        developer.me()

    assert [seen.path for seen in server.seen] == ["/api-token-auth/", "/api/v1/me/", "/api/v1/me/"]
    assert server.seen[0].json() == {"username": "ann", "password": "hunter2"}
    assert server.seen[2].headers["authorization"] == "Token fresh"


def test_the_code_of_a_second_factor_goes_with_the_password(server: ScriptedServer, make: MakeClient) -> None:
    server.on("POST", "api-token-auth/", json_reply({"token": "fresh"}))
    server.on("GET", "api/v1/me/", json_reply({}))

    with make(username="ann", password="hunter2", code="123456") as developer:
        developer.me()

    assert server.seen[0].json() == {"username": "ann", "password": "hunter2", "code": "123456"}
    with pytest.raises(InvalidArgument, match="either token="):
        make(token="t", code="123456")


def test_wrong_password_is_told(server: ScriptedServer, make: MakeClient) -> None:
    wrong = {"non_field_errors": ["Unable to log in with provided credentials."]}
    server.on("POST", "api-token-auth/", json_reply(wrong, 400))

    with pytest.raises(InvalidRequest, match="Unable to log in"):
        make(username="ann", password="wrong").me()


def test_login_without_a_token_is_unexpected(server: ScriptedServer, make: MakeClient) -> None:
    server.on("POST", "api-token-auth/", json_reply({}))

    with pytest.raises(UnexpectedAnswer, match="without a token"):
        make(username="ann", password="x").me()


@pytest.mark.parametrize(
    "wrong",
    [
        {"token": None},
        {"username": "ann"},
        {"password": "x"},
        {"token": "t", "username": "ann"},
        {"token": "t", "username": "ann", "password": "x"},
    ],
)
def test_exactly_one_way_to_log_in_is_given(make: MakeClient, wrong: dict[str, str | None]) -> None:
    with pytest.raises(ValueError, match="give either token="):
        make(**wrong)


def test_secrets_are_not_shown(make: MakeClient) -> None:
    assert "hunter2" not in repr(make(username="ann", password="hunter2"))
    assert "t0ken" not in repr(make())


def test_model_is_created_with_what_was_said_and_nothing_else(
    server: ScriptedServer, developer: DeveloperClient
) -> None:
    server.on("POST", "api/v1/models/", DROP, json_reply({"id": 3}, 201))

    model = developer.create_model("digits", requirement="require_x_updates", requirement_args=[5])

    assert model == {"id": 3}
    assert server.seen[0].json() == {
        "name": "digits",
        "aggregator": "mean",
        "requirement": "require_x_updates",
        "requirement_args": [5],
        "allow_aggregation": True,
    }
    assert len({seen.headers["idempotency-key"] for seen in server.seen}) == 1


def test_model_is_created_with_the_strategy_that_was_said(
    server: ScriptedServer, developer: DeveloperClient
) -> None:
    server.on("POST", "api/v1/models/", json_reply({"id": 3}, 201))
    strategy: dict[str, Any] = {
        "aggregator": "krum",
        "aggregator_params": {"f": 1},
        "stages": [{"name": "clip_norm", "max_norm": 1.0}],
        "optimiser": {"name": "fedadam"},
        "update_kind": "delta",
        "staleness": {"name": "hinge"},
    }

    developer.create_model("digits", **strategy)

    assert server.seen[0].json() == {"name": "digits", **strategy, "allow_aggregation": True}


def test_field_errors_are_told(server: ScriptedServer, developer: DeveloperClient) -> None:
    server.on(
        "POST", "api/v1/models/", json_reply({"aggregator": ["unknown; known: mean"], "code": "invalid"}, 400)
    )

    with pytest.raises(InvalidRequest, match="aggregator: unknown; known: mean") as caught:
        developer.create_model("digits", aggregator="maen")

    assert caught.value.fields == {"aggregator": ["unknown; known: mean"]}


def test_model_is_created_with_the_experiment_that_was_said(
    server: ScriptedServer, developer: DeveloperClient
) -> None:
    server.on("POST", "api/v1/models/", json_reply({"id": 3}, 201))
    experiment: dict[str, Any] = {
        "aggregator": "mean",
        "allow_aggregation": False,
        "round_policy": {"goal": 3, "deadline_s": 60},
        "selector": {"name": "random"},
        "eligibility": [{"name": "charging"}],
        "seed": 0,
        "client_config": {"epochs": 2},
        "client_config_overrides": [{"rounds": [1, 2], "set": {"epochs": 5}}],
        "client_config_schema": {"type": "object"},
    }

    developer.create_model("digits", **experiment)

    assert server.seen[0].json() == {"name": "digits", **experiment}


def test_model_is_changed_by_what_was_said(server: ScriptedServer, developer: DeveloperClient) -> None:
    server.on("PATCH", "api/v1/models/3/", json_reply({"id": 3}))

    assert developer.change_model(3, round_policy={"goal": 2}) == {"id": 3}
    assert server.seen[0].json() == {"round_policy": {"goal": 2}}
    assert "idempotency-key" not in server.seen[0].headers


@pytest.mark.parametrize("action", ["start", "pause", "resume", "cancel"])
def test_life_of_an_experiment(server: ScriptedServer, developer: DeveloperClient, action: str) -> None:
    server.on("POST", f"api/v1/models/3/{action}/", json_reply({"id": 3}))

    assert getattr(developer, action)(3) == {"id": 3}


def test_experiment_that_has_ended_is_not_resumed(server: ScriptedServer, developer: DeveloperClient) -> None:
    server.on("POST", "api/v1/models/3/resume/", json_reply({"code": "experiment_ended"}, 409))

    with pytest.raises(ExperimentEnded):
        developer.resume(3)


def test_rewinding_names_the_aggregate(server: ScriptedServer, developer: DeveloperClient) -> None:
    server.on("POST", "api/v1/models/3/rewind/", DROP, json_reply({"id": 9}, 201))

    assert developer.rewind(3, 7) == {"id": 9}
    assert server.seen[0].json() == {"aggregate": 7}
    assert len({seen.headers["idempotency-key"] for seen in server.seen}) == 1


def test_clone_says_what_differs_and_nothing_else(server: ScriptedServer, developer: DeveloperClient) -> None:
    server.on("POST", "api/v1/models/3/clone/", json_reply({"id": 4}, 201))

    developer.clone(3)
    developer.clone(3, name="again", aggregate=7, clients=True)

    assert [seen.json() for seen in server.seen] == [
        {"clients": False},
        {"clients": True, "name": "again", "aggregate": 7},
    ]


def test_selection_has_the_rows_of_all_pages(server: ScriptedServer, developer: DeveloperClient) -> None:
    path = "api/v1/models/3/rounds/2/selection/"
    pages = [{"round": 2, "num_asked": 1, "clients": [{"client": name}]} for name in ("a", "b")]
    server.on("GET", path, json_reply(pages[0], Link='<?page=2>; rel="next"'), json_reply(pages[1]))

    assert developer.selection(3, 2) == {
        "round": 2,
        "num_asked": 1,
        "clients": [{"client": "a"}, {"client": "b"}],
    }
    assert [seen.query for seen in server.seen] == [{"page_size": "100"}, {"page": "2"}]


def test_metrics_are_the_rows_of_all_pages(server: ScriptedServer, developer: DeveloperClient) -> None:
    rows = [
        {"round": 1, "metric": "loss"},
        {"round": 1, "metric": "accuracy"},
        {"round": 2, "metric": "loss"},
    ]
    pages = [json_reply(rows[:2], Link='<?page=2>; rel="next"'), json_reply(rows[2:])]
    server.on("GET", "api/v1/models/3/metrics/", *pages)

    assert developer.metrics(3) == rows
    assert server.seen[0].query == {"page_size": "100"}


def test_metrics_can_be_narrowed(server: ScriptedServer, developer: DeveloperClient) -> None:
    server.on("GET", "api/v1/models/3/metrics/", json_reply([]))

    assert developer.metrics(3, metric="loss", source="training", first_round=2, per_client=True) == []
    assert server.seen[0].query == {
        "metric": "loss",
        "source": "training",
        "first_round": "2",
        "per_client": "true",
        "page_size": "100",
    }


def test_participation_has_a_row_for_each_client(server: ScriptedServer, developer: DeveloperClient) -> None:
    rows = [{"client": "a", "asked": 2}, {"client": "b", "asked": 1}]
    server.on("GET", "api/v1/models/3/participation/", json_reply(rows))

    assert developer.participation(3) == rows


def test_round_is_cancelled_by_its_number(server: ScriptedServer, developer: DeveloperClient) -> None:
    server.on("POST", "api/v1/models/3/rounds/2/cancel/", json_reply({"number": 2, "state": "cancelled"}))

    assert developer.cancel_round(3, 2)["state"] == "cancelled"


def test_initial_model_is_sent_as_bytes(server: ScriptedServer, developer: DeveloperClient) -> None:
    weights = {"w": np.eye(2, dtype=np.float16)}
    server.on("POST", "api/v1/models/3/initial_model/", json_reply({"version": "1.0.0"}, 201))

    assert developer.set_initial_model(3, weights) == {"version": "1.0.0"}
    assert server.seen[0].body == safetensors.encode(weights)
    assert server.seen[0].headers["content-type"] == "application/vnd.safetensors"


def test_the_policies_of_an_adapter_give_way_to_those_of_the_model(
    server: ScriptedServer, developer: DeveloperClient
) -> None:
    server.on("GET", "api/v1/models/3/", json_reply({"id": 3, "array_policies": {"ids": "kept"}}))
    server.on("PATCH", "api/v1/models/3/", json_reply({"id": 3}))
    server.on("POST", "api/v1/models/3/initial_model/", json_reply({"version": "1.0.0"}, 201))

    policies = {"ids": "newest", "spread": "averaged"}
    developer.set_initial_model(3, {"spread": np.ones(1)}, array_policies=policies)

    assert server.seen[1].json() == {"array_policies": {"ids": "kept", "spread": "averaged"}}
    assert server.seen[2].path == "/api/v1/models/3/initial_model/"


def test_publish_names_the_version(server: ScriptedServer, developer: DeveloperClient) -> None:
    server.on("POST", "api/v1/model_aggregates/7/publish_aggregate/", json_reply({"version": "1.0.1"}, 201))

    assert developer.publish(7, "1.0.1") == {"version": "1.0.1"}
    assert server.seen[0].json() == {"version": "1.0.1"}


def test_one_model_and_a_stranger_to_it(server: ScriptedServer, developer: DeveloperClient) -> None:
    server.on("GET", "api/v1/models/3/", json_reply({"id": 3}))
    server.on("GET", "api/v1/models/4/", json_reply({"code": "not_found"}, 404))

    assert developer.model(3) == {"id": 3}
    with pytest.raises(NotFound):
        developer.model(4)


@pytest.mark.parametrize(
    ("path", "filters", "ask"),
    [
        ("models/", {}, lambda fma: fma.models()),
        ("models/3/rounds/", {}, lambda fma: fma.rounds(3)),
        ("models/3/history/", {}, lambda fma: fma.history(3)),
        ("model_updates/", {"federated_model": "3"}, lambda fma: fma.updates(3)),
        ("model_aggregates/", {"federated_model": "3"}, lambda fma: fma.aggregates(3)),
        ("model_artifacts/", {"federated_model": "3"}, lambda fma: fma.artifacts(3)),
        ("client_aggregate_scores/", {"aggregate": "7"}, lambda fma: fma.scores(7)),
    ],
)
def test_lists_are_read_to_their_last_page(
    server: ScriptedServer,
    developer: DeveloperClient,
    path: str,
    filters: dict[str, str],
    ask: Callable[[DeveloperClient], list[Any]],
) -> None:
    def page(seen: Seen) -> Reply:
        number = int(seen.query.get("page", 1))
        # The first of a page has already been the last of the one before: something was made meanwhile.
        items = [{"id": 11 - 2 * number}, {"id": 10 - 2 * number}, {"id": 9 - 2 * number}]
        if number == 3:
            return json_reply(items[:2])
        # The address of the next page names a server behind the proxy; only its query counts.
        link = f'<http://inner:8000/api/v1/{path}?page={number + 1}&kept=yes>; rel="next"'
        return json_reply(items, Link=link)

    server.on("GET", "api/v1/" + path, page)

    assert [item["id"] for item in ask(developer)] == [9, 8, 7, 6, 5, 4]
    assert server.seen[0].query == {**filters, "page_size": "100"}
    assert server.seen[2].query == {"page": "3", "kept": "yes"}


def test_limit_stops_before_the_pages_that_are_not_needed(
    server: ScriptedServer, developer: DeveloperClient
) -> None:
    server.on("GET", "api/v1/models/", json_reply([{"id": 2}, {"id": 1}], Link='<?page=2>; rel="next"'))

    assert developer.models(limit=1) == [{"id": 2}]
    assert developer.models(limit=0) == []
    assert len(server.seen) == 2


def test_list_that_is_none_is_unexpected(server: ScriptedServer, developer: DeveloperClient) -> None:
    server.on("GET", "api/v1/models/", json_reply({"results": []}))

    with pytest.raises(UnexpectedAnswer, match="models/ answered dict; a list was expected"):
        developer.models()


def test_watch_wakes_by_one_byte_of_a_newer_model(
    server: ScriptedServer, developer: DeveloperClient, fake_time: FakeTime
) -> None:
    def hold_back(seen: Seen) -> Reply:
        fake_time.now_s += int(seen.query["wait"])
        return Reply(206, b"x", {"Content-Range": "bytes 0-0/100"})

    rounds = [
        {"number": 2, "state": "collecting", "aggregate": None},
        {"number": 1, "state": "published", "aggregate": 7},
    ]
    published = [{"number": 2, "state": "published", "aggregate": 8}, *rounds[1:]]
    server.on("GET", "api/v1/models/3/rounds/", json_reply(rounds), json_reply(rounds), json_reply(published))
    server.on("GET", "api/v1/models/3/get_latest_model/", hold_back)

    seen = [round_["number"] for round_ in developer.watch(3, timeout_s=30)]

    waiting = server.calls("GET", "api/v1/models/3/get_latest_model/")
    assert seen == [2]
    assert [(call.query["after"], call.query["wait"]) for call in waiting] == [
        ("7", "10"),
        ("8", "10"),
        ("8", "10"),
    ]
    assert {call.headers["range"] for call in waiting} == {"bytes=0-0"}
    assert fake_time.sleeps == []


@pytest.mark.parametrize("cut", [DROP, Reply(504)], ids=["drop", "504"])
def test_watch_behind_a_proxy_that_cuts_waits_ends_in_time(
    server: ScriptedServer, developer: DeveloperClient, fake_time: FakeTime, cut: Reply
) -> None:
    def proxied(seen: Seen) -> Reply:
        wait_s = int(seen.query["wait"])
        fake_time.now_s += min(wait_s, 3)
        return cut if wait_s > 3 else Reply(204)

    server.on(
        "GET",
        "api/v1/models/3/rounds/",
        json_reply([{"number": 1, "state": "collecting", "aggregate": None}]),
    )
    server.on("GET", "api/v1/models/3/get_latest_model/", proxied)
    began_at = fake_time.now_s

    assert list(developer.watch(3, timeout_s=20)) == []

    assert fake_time.now_s - began_at <= 20.5
    waits = [int(call.query["wait"]) for call in server.calls("GET", "api/v1/models/3/get_latest_model/")]
    assert waits[0] == 10
    assert max(waits[1:]) <= 3


def test_watch_of_a_server_that_is_away_ends_in_time(
    server: ScriptedServer, developer: DeveloperClient, fake_time: FakeTime
) -> None:
    server.on("GET", "api/v1/models/3/rounds/", Reply(504))
    began_at = fake_time.now_s

    with pytest.raises(ServerFailed):
        list(developer.watch(3, timeout_s=10))

    assert fake_time.now_s - began_at <= 10.5
