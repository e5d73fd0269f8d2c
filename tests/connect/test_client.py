import copy
import hashlib
import json
import logging
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fma_connect import Client, Pulled
from fma_connect.digest import content_digest
from fma_connect.exceptions import (
    Conflict,
    ConnectionFailed,
    CredentialError,
    InvalidArgument,
    InvalidRequest,
    NotAllowed,
    NotFound,
    ServerFailed,
    TooManyRequests,
    UnexpectedAnswer,
)
from fma_core.arrays.codecs import safetensors
from fma_core.errors import FMAError
from tests.connect.conftest import FakeTime
from tests.connect.scripted_server import DROP, Reply, ScriptedServer, Seen, json_reply

REGISTER = "api/v1/models/3/register_client/"
LATEST = "api/v1/models/3/get_latest_model/"
UPDATES = "api/v1/model_updates/"
SCORES = "api/v1/client_aggregate_scores/"

MakeClient = Callable[..., Client]
Weights = dict[str, np.ndarray]


@pytest.fixture
def make(server: ScriptedServer, fake_time: FakeTime, tmp_path: Path) -> Iterator[MakeClient]:
    made: list[Client] = []

    def make(**changes: Any) -> Client:
        quiet = {"credential_file": tmp_path / "client.json", "telemetry": False}
        options = {**quiet, **fake_time.injected, **changes}
        made.append(Client(server.url, 3, **options))
        return made[-1]

    server.on("POST", REGISTER, json_reply({"uuid": "s3cr3t", "id": "c-17"}))
    yield make
    for client in made:
        client.close()


def weights_reply(weights: Weights, *, aggregate: int | None = None, **changes: Any) -> Reply:
    body = safetensors.encode(weights)
    headers = {"Content-Type": "application/vnd.safetensors", "ETag": f'"{hashlib.sha256(body).hexdigest()}"'}
    if aggregate is not None:
        headers["FMA-Aggregate"] = str(aggregate)
    return Reply(200, body, headers, **changes)


def not_modified(aggregate: int | None = None) -> Reply:
    return Reply(304, headers={} if aggregate is None else {"FMA-Aggregate": str(aggregate)})


# Registration


def test_client_registers_once_and_keeps_its_credential(
    server: ScriptedServer, make: MakeClient, tmp_path: Path
) -> None:
    server.on("GET", "api/v1/me/", json_reply({"kind": "client"}))

    assert make().me() == {"kind": "client"}
    assert make().me() == {"kind": "client"}

    assert len(server.calls("POST", REGISTER)) == 1
    assert {seen.headers["client-uuid"] for seen in server.calls("GET", "api/v1/me/")} == {"s3cr3t"}
    assert (tmp_path / "client.json").stat().st_mode & 0o777 == 0o600
    assert make().register() == "c-17"


@pytest.mark.parametrize("model", ["3", np.int64(3), 3.0, np.array(3)])
def test_what_means_the_model_opens_the_same_file(
    server: ScriptedServer, fake_time: FakeTime, tmp_path: Path, model: Any
) -> None:
    server.on("POST", REGISTER, json_reply({"uuid": "s3cr3t", "id": "c-17"}))
    server.on("GET", "api/v1/me/", json_reply({}))
    for _ in range(2):
        options = {"credential_file": tmp_path / "client.json", "telemetry": False, **fake_time.injected}
        with Client(server.url, model, **options) as client:
            client.me()

    assert client.model == 3
    assert len(server.calls("POST", REGISTER)) == 1


@pytest.mark.parametrize("model", ["three", 0, -1, 3.5, None, True])
def test_what_is_no_model_writes_no_file(tmp_path: Path, model: Any) -> None:
    with pytest.raises(InvalidArgument, match="model must be"):
        Client("http://127.0.0.1:9", model, credential_file=tmp_path / "client.json")

    assert list(tmp_path.iterdir()) == []


def test_registration_survives_lost_answers_and_a_restart(
    server: ScriptedServer, make: MakeClient, fake_time: FakeTime
) -> None:
    server.on("POST", REGISTER, DROP)
    with pytest.raises(ConnectionFailed):
        make().register()

    server.on("POST", REGISTER, DROP, Reply(503), json_reply({"uuid": "s3cr3t", "id": 17}))
    assert make().register() == "17"

    assert len({seen.headers["idempotency-key"] for seen in server.calls("POST", REGISTER)}) == 1


def test_registration_begun_too_long_ago_is_begun_anew(
    server: ScriptedServer, make: MakeClient, tmp_path: Path
) -> None:
    server.on("POST", REGISTER, DROP)
    with pytest.raises(ConnectionFailed):
        make().register()
    server.seen.clear()

    expired = json_reply({"code": "idempotency_key_expired"}, 409)
    server.on("POST", REGISTER, expired, json_reply({"uuid": "s3cr3t", "id": "c-18"}))

    assert make().register() == "c-18"
    assert make().register() == "c-18"
    assert len({seen.headers["idempotency-key"] for seen in server.calls("POST", REGISTER)}) == 2


def test_other_conflict_at_registration_is_told(server: ScriptedServer, make: MakeClient) -> None:
    server.on("POST", REGISTER, json_reply({"code": "model_closed"}, 409))

    with pytest.raises(Conflict, match="model_closed"):
        make().register()


def test_threads_share_one_registration(server: ScriptedServer, make: MakeClient) -> None:
    client = make()

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda _: client.register(), range(8)))

    assert ids == ["c-17"] * 8
    assert len(server.calls("POST", REGISTER)) == 1


def test_client_without_a_file_registers_once_however_often_it_tries(
    server: ScriptedServer, make: MakeClient
) -> None:
    client = make(credential_file=None)
    server.on("POST", REGISTER, DROP)
    with pytest.raises(ConnectionFailed):
        client.register()
    server.on("POST", REGISTER, json_reply({"uuid": "s3cr3t", "id": "c-17"}))

    assert client.register() == "c-17"
    assert len({seen.headers["idempotency-key"] for seen in server.seen}) == 1


def test_clients_without_a_file_are_different_clients(server: ScriptedServer, make: MakeClient) -> None:
    make(credential_file=None).register()
    make(credential_file=None).register()

    first, second = server.calls("POST", REGISTER)
    assert first.headers["idempotency-key"] != second.headers["idempotency-key"]


def test_enrolment_token_and_given_uuid_go_with_the_registration(
    server: ScriptedServer, make: MakeClient
) -> None:
    make(enrolment_token="t0ken", uuid="0ld").register()

    (seen,) = server.calls("POST", REGISTER)
    assert seen.headers["fma-enrolment-token"] == "t0ken"
    assert seen.headers["client-uuid"] == "0ld"
    assert seen.json().keys() == {"public_key", "key_proof"}


@pytest.mark.parametrize("jwt", ["a.b.c\n", lambda: "a.b.c"])
def test_a_jwt_goes_with_the_registration_alone(server: ScriptedServer, make: MakeClient, jwt: Any) -> None:
    server.on("POST", UPDATES, json_reply({"id": 5}, 201))

    make(enrolment_jwt=jwt).push({"b": np.ones(2)})

    assert [call.headers["authorization"] for call in server.calls("POST", REGISTER)] == ["Bearer a.b.c"]
    assert not any("authorization" in call.headers for call in server.calls("POST", UPDATES))


def test_credential_of_another_server_or_model_is_never_sent(
    server: ScriptedServer, make: MakeClient, tmp_path: Path
) -> None:
    make().register()
    asked = len(server.seen)

    with pytest.raises(CredentialError, match=r"is for model 3 of .*, not for model 4 of "):
        Client(server.url, 4, credential_file=tmp_path / "client.json").me()
    with pytest.raises(CredentialError, match=r"not for model 3 of https://example\.org/"):
        Client("https://example.org", 3, credential_file=tmp_path / "client.json").me()

    assert len(server.seen) == asked


def test_refused_registration_is_told(server: ScriptedServer, make: MakeClient) -> None:
    server.on("POST", REGISTER, json_reply({"detail": "closed", "code": "registration_closed"}, 403))

    with pytest.raises(NotAllowed, match="403 registration_closed: closed"):
        make().register()


@pytest.mark.parametrize("answer", [{}, [], {"uuid": None}])
def test_registration_without_a_credential_is_unexpected(
    server: ScriptedServer, make: MakeClient, answer: Any
) -> None:
    server.on("POST", REGISTER, json_reply(answer))

    with pytest.raises(UnexpectedAnswer, match="without a credential"):
        make().register()


def test_server_that_keeps_public_ids_to_itself_is_fine(server: ScriptedServer, make: MakeClient) -> None:
    server.on("POST", REGISTER, json_reply({"uuid": "s3cr3t"}))

    assert make().register() is None


# Pulling


def test_pull_gives_the_arrays_and_their_aggregate(
    server: ScriptedServer, make: MakeClient, weights: Weights
) -> None:
    reply = weights_reply(weights, aggregate=7)
    server.on("GET", LATEST, reply)

    pulled = make().pull()

    assert pulled is not None
    assert (pulled.base_aggregate, pulled.etag) == (7, reply.headers["ETag"])
    assert {name: array.dtype for name, array in pulled.arrays.items()} == {
        name: array.dtype for name, array in weights.items()
    }
    assert all(np.array_equal(pulled.arrays[name], array) for name, array in weights.items())
    assert server.calls("GET", LATEST)[0].headers["accept"] == "application/vnd.safetensors"


def test_pulled_arrays_are_read_only_and_copies_are_not(
    server: ScriptedServer, make: MakeClient, weights: Weights
) -> None:
    server.on("GET", LATEST, weights_reply(weights))
    pulled = make().pull()
    assert pulled is not None

    with pytest.raises(ValueError, match="read-only"):
        pulled.arrays["w"][0, 0] = 1
    with pytest.raises(TypeError):
        pulled.arrays["w"] = weights["w"]
    pulled.copies()["w"][0, 0] = 9e9

    assert np.array_equal(pulled.arrays["w"], weights["w"])


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda pulled: pickle.loads(pickle.dumps(pulled))]
)
def test_pulled_can_be_copied_and_pickled(weights: Weights, again: Callable[[Pulled], Pulled]) -> None:
    pulled = again(Pulled(weights, 7, "etag"))

    assert (pulled.base_aggregate, pulled.etag) == (7, "etag")
    np.testing.assert_array_equal(pulled.arrays["w"], weights["w"])
    with pytest.raises(ValueError, match="read-only"):
        pulled.arrays["w"][0] = 1
    pulled.copies()["w"][0] = 1


@pytest.mark.parametrize("nothing", [Reply(204), json_reply({})])
def test_pull_without_a_model_is_none(server: ScriptedServer, make: MakeClient, nothing: Reply) -> None:
    server.on("GET", LATEST, nothing)

    assert make().pull() is None


def test_unchanged_model_is_not_transferred_again(
    server: ScriptedServer, make: MakeClient, weights: Weights
) -> None:
    reply = weights_reply(weights, aggregate=7)
    server.on("GET", LATEST, reply, not_modified())
    client = make()

    first, second = client.pull(), client.pull()

    assert first is second
    assert [seen.headers.get("if-none-match") for seen in server.calls("GET", LATEST)] == [
        None,
        reply.headers["ETag"],
    ]


def test_same_weights_can_be_a_newer_aggregate(
    server: ScriptedServer, make: MakeClient, weights: Weights
) -> None:
    server.on("GET", LATEST, weights_reply(weights, aggregate=7), not_modified(aggregate=8))
    client = make()

    first, second = client.pull(), client.pull()

    assert first is not None
    assert second is not None
    assert (first.base_aggregate, second.base_aggregate) == (7, 8)
    assert second.arrays["w"] is first.arrays["w"]


def test_unasked_304_is_unexpected(server: ScriptedServer, make: MakeClient) -> None:
    server.on("GET", LATEST, not_modified())

    with pytest.raises(UnexpectedAnswer, match="304"):
        make().pull()


def test_damaged_and_truncated_weights_are_fetched_again(
    server: ScriptedServer, make: MakeClient, weights: Weights
) -> None:
    good = weights_reply(weights, aggregate=7)
    damaged = Reply(200, good.body[:-1] + b"\x01", good.headers)
    server.on("GET", LATEST, damaged, Reply(200, good.body, good.headers, truncate_to=50), good)

    pulled = make().pull()

    assert pulled is not None
    assert np.array_equal(pulled.arrays["w"], weights["w"])
    assert len(server.calls("GET", LATEST)) == 3


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (json_reply({"values": [1.0]}), "as application/json; application/vnd.safetensors was expected"),
        (
            Reply(200, b"x" * 20, {"Content-Type": "application/vnd.safetensors"}),
            "the weights cannot be read",
        ),
        (Reply(204, headers={"FMA-Aggregate": "seven"}), "FMA-Aggregate must be a number"),
    ],
)
def test_answer_that_is_no_model_is_unexpected(
    server: ScriptedServer, make: MakeClient, reply: Reply, why: str
) -> None:
    server.on("GET", LATEST, reply)

    with pytest.raises(UnexpectedAnswer, match=why):
        make().wait_for_next(timeout_s=0) if "FMA-Aggregate" in reply.headers else make().pull()


def test_unknown_model_is_told(server: ScriptedServer, make: MakeClient) -> None:
    server.on(
        "POST", REGISTER, json_reply({"detail": "No FederatedModel matches.", "code": "not_found"}, 404)
    )

    with pytest.raises(NotFound, match="404 not_found"):
        make().pull()


# Pushing


def test_push_sends_canonical_weights_with_what_the_server_must_know(
    server: ScriptedServer, make: MakeClient, weights: Weights
) -> None:
    server.on("GET", LATEST, weights_reply(weights, aggregate=7))
    server.on("POST", UPDATES, json_reply({"id": 5}, 201))
    client = make()
    client.pull()

    assert client.push(weights, num_examples=412, metrics={"loss": 0.25}) == {"id": 5}

    (seen,) = server.calls("POST", UPDATES)
    assert seen.body == safetensors.encode(weights)
    assert seen.headers["content-type"] == "application/vnd.safetensors"
    assert seen.headers["content-digest"] == content_digest(seen.body)
    assert seen.query == {"federated_model": "3", "base_aggregate": "7", "num_examples": "412"}
    assert json.loads(seen.headers["fma-metrics"]) == {"loss": 0.25}


def test_a_client_that_trained_from_the_initial_model_says_so(
    server: ScriptedServer, make: MakeClient, weights: Weights
) -> None:
    server.on("GET", LATEST, weights_reply(weights, aggregate=None))
    server.on("POST", UPDATES, json_reply({"id": 5}, 201))
    client = make()
    client.pull()

    client.push(weights)

    assert server.calls("POST", UPDATES)[0].query["base_aggregate"] == "0"


@pytest.mark.parametrize(
    ("base", "sent"),
    [
        ({}, None),
        ({"base_aggregate": 4}, "4"),
        ({"base_aggregate": None}, None),
        ({"base_aggregate": 0}, "0"),
        ({"base_aggregate": np.int64(0)}, "0"),
    ],
)
def test_base_aggregate_can_be_named(
    server: ScriptedServer, make: MakeClient, weights: Weights, base: dict[str, int | None], sent: str | None
) -> None:
    server.on("POST", UPDATES, json_reply({"id": 5}, 201))

    make().push(weights, **base)  # type: ignore[arg-type]

    assert server.calls("POST", UPDATES)[0].query.get("base_aggregate") == sent


def test_lost_answer_to_a_push_is_asked_for_again_under_the_same_key(
    server: ScriptedServer, make: MakeClient, weights: Weights
) -> None:
    server.on("POST", UPDATES, DROP, Reply(502), json_reply({"id": 5}, 201))

    make().push(weights)

    assert len({seen.headers["idempotency-key"] for seen in server.calls("POST", UPDATES)}) == 1
    assert len({seen.body for seen in server.calls("POST", UPDATES)}) == 1


def test_weights_that_do_not_fit_are_told_and_not_sent_again(
    server: ScriptedServer, make: MakeClient, weights: Weights
) -> None:
    problem = {"code": "shape_mismatch", "detail": "array 'w' has shape (3, 4); the model's spec says (3, 5)"}
    server.on("POST", UPDATES, json_reply(problem, 422))

    with pytest.raises(InvalidRequest, match="array 'w' has shape") as caught:
        make().push(weights)

    assert caught.value.code == "shape_mismatch"
    assert len(server.calls("POST", UPDATES)) == 1


def test_what_cannot_be_an_update_is_refused_before_it_is_sent(
    server: ScriptedServer, make: MakeClient, weights: Weights
) -> None:
    with pytest.raises(ValueError, match="num_examples must be at least 1; got 0"):
        make().push(weights, num_examples=0)
    with pytest.raises(InvalidArgument, match="metrics.loss is a object"):
        make().push(weights, metrics={"loss": object()})

    assert server.calls("POST", UPDATES) == []


@pytest.mark.parametrize(
    ("value", "code", "how"),
    [
        (np.nan, "non_finite_value", {}),
        (np.nan, "non_finite_value", {"compress": True}),
        (np.inf, "non_finite_value", {"quantise": "int8"}),
        (1e30, "value_out_of_range", {"quantise": "float16"}),
        ("text", "invalid_spec", {}),
    ],
)
def test_what_is_no_weights_is_refused_without_a_call(
    server: ScriptedServer, make: MakeClient, value: object, code: str, how: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest, match=f"^{code}: .*array 'w'") as raised:
        make().push({"w": np.array([value])}, **how)

    assert (raised.value.status, raised.value.status_code, raised.value.code) == (0, None, code)
    assert raised.value.fields["array"] == "w"
    assert isinstance(raised.value.__cause__, FMAError)
    assert server.seen == []


@pytest.mark.parametrize(
    ("weights", "hint"),
    [
        ([np.zeros(2)], "array_list.to_arrays makes one; got a list"),
        ((np.zeros(2),), "array_list.to_arrays makes one; got a tuple"),
        (np.zeros(2), "such as {'w': array}; got a ndarray"),
        (None, "such as {'w': array}; got a NoneType"),
    ],
)
def test_weights_in_another_form_are_refused_with_the_adapter(
    server: ScriptedServer, make: MakeClient, weights: Any, hint: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        make().push(weights)

    assert "weights are a mapping of names to numpy arrays" in str(caught.value)
    assert hint in str(caught.value)
    assert server.calls("POST", UPDATES) == []


# Waiting


def test_wait_asks_for_what_comes_after_the_last_pulled(
    server: ScriptedServer, make: MakeClient, weights: Weights
) -> None:
    server.on("GET", LATEST, weights_reply(weights, aggregate=7), weights_reply(weights, aggregate=8))
    client = make()
    client.pull()

    pulled = client.wait_for_next(timeout_s=100)

    assert pulled is not None
    assert pulled.base_aggregate == 8
    assert server.calls("GET", LATEST)[1].query == {"after": "7", "wait": "30"}


def test_wait_before_the_first_pull_takes_any_aggregate(
    server: ScriptedServer, make: MakeClient, weights: Weights
) -> None:
    server.on("GET", LATEST, weights_reply(weights, aggregate=1))

    pulled = make().wait_for_next(timeout_s=10)

    assert pulled is not None
    assert server.calls("GET", LATEST)[0].query == {"after": "0", "wait": "10"}


def holding_back(fake_time: FakeTime, then: Reply, for_s: float | None = None) -> Callable[[Seen], Reply]:
    def answer(seen: Seen) -> Reply:
        fake_time.now_s += int(seen.query["wait"]) if for_s is None else for_s
        return then

    return answer


def test_wait_ends_in_time_without_pauses_when_the_server_holds_back(
    server: ScriptedServer, make: MakeClient, fake_time: FakeTime
) -> None:
    server.on("GET", LATEST, holding_back(fake_time, Reply(204)))

    assert make().wait_for_next(timeout_s=100) is None

    assert [seen.query["wait"] for seen in server.calls("GET", LATEST)] == ["30", "30", "30", "10"]
    assert fake_time.sleeps == []


def test_server_that_does_not_hold_back_is_polled_ever_more_patiently(
    server: ScriptedServer, make: MakeClient, fake_time: FakeTime, weights: Weights
) -> None:
    old = weights_reply(weights, aggregate=7)
    server.on("GET", LATEST, old, old, Reply(204), *[old] * 20)
    client = make()
    client.pull()
    began_at = fake_time.now_s

    assert client.wait_for_next(timeout_s=300) is None

    assert fake_time.now_s - began_at == pytest.approx(300)
    assert min(fake_time.sleeps[:-1]) >= 0.2
    assert 10 < len(fake_time.sleeps) < 120
    assert sum(fake_time.sleeps[:4]) < sum(fake_time.sleeps[8:12])


def test_wait_outlives_a_server_that_is_away(
    server: ScriptedServer, make: MakeClient, weights: Weights
) -> None:
    server.on("GET", LATEST, *[Reply(503)] * 60, weights_reply(weights, aggregate=8))
    client = make()

    pulled = client.wait_for_next(timeout_s=10_000)

    assert pulled is not None
    assert pulled.base_aggregate == 8


def test_wait_honours_retry_after(
    server: ScriptedServer, make: MakeClient, fake_time: FakeTime, weights: Weights
) -> None:
    server.on("GET", LATEST, json_reply({}, 429, Retry_After="500"), weights_reply(weights, aggregate=8))

    make().wait_for_next(timeout_s=1000)

    assert max(fake_time.sleeps) == 500


@pytest.mark.parametrize(
    ("reply", "error"), [(DROP, ConnectionFailed), (Reply(503), ServerFailed), (Reply(429), TooManyRequests)]
)
def test_wait_says_when_the_server_stayed_away(
    server: ScriptedServer, make: MakeClient, reply: Reply, error: type[Exception]
) -> None:
    server.on("GET", LATEST, reply)

    with pytest.raises(error):
        make().wait_for_next(timeout_s=200)


def test_wait_for_a_server_that_is_gone_ends_in_time(
    server: ScriptedServer, make: MakeClient, fake_time: FakeTime
) -> None:
    server.on("GET", LATEST, DROP)
    client = make()
    client.register()
    began_at = fake_time.now_s

    with pytest.raises(ConnectionFailed):
        client.wait_for_next(timeout_s=8)

    assert fake_time.now_s - began_at == pytest.approx(8)
    assert len(server.calls("GET", LATEST)) > 2


def test_a_server_that_returns_is_not_asked_to_hold_back_past_the_end(
    server: ScriptedServer, make: MakeClient, fake_time: FakeTime
) -> None:
    server.on("GET", LATEST, holding_back(fake_time, DROP, for_s=5), holding_back(fake_time, Reply(204)))

    assert make().wait_for_next(timeout_s=8) is None

    first, second, *_ = (int(seen.query["wait"]) for seen in server.calls("GET", LATEST))
    assert (first, fake_time.sleeps[0] >= 0.2) == (8, True)
    assert second <= 3


def test_an_answer_that_has_begun_is_read_after_the_time_to_wait_for_it(
    server: ScriptedServer, make: MakeClient, fake_time: FakeTime, weights: Weights
) -> None:
    late = holding_back(fake_time, weights_reply(weights, aggregate=8), for_s=8 + 50)
    server.on("GET", LATEST, late)

    assert make().wait_for_next(timeout_s=8) is not None


@pytest.mark.parametrize("cut", [DROP, Reply(504)], ids=["drop", "504"])
@pytest.mark.parametrize("cuts_at_s", [3, 5, 15])
def test_wait_behind_a_proxy_that_cuts_it_ends_in_time(
    server: ScriptedServer, make: MakeClient, fake_time: FakeTime, cut: Reply, cuts_at_s: int
) -> None:
    def proxied(seen: Seen) -> Reply:
        wait_s = int(seen.query["wait"])
        fake_time.now_s += min(wait_s, cuts_at_s)
        return cut if wait_s > cuts_at_s else Reply(204)

    server.on("GET", LATEST, proxied)
    began_at = fake_time.now_s
    client = make()

    assert client.wait_for_next(timeout_s=20) is None
    assert fake_time.now_s - began_at <= 20.5

    server.seen.clear()
    assert client.wait_for_next(timeout_s=20) is None
    assert max(int(seen.query["wait"]) for seen in server.calls("GET", LATEST)) <= cuts_at_s


def test_registration_is_part_of_the_time_to_wait(
    server: ScriptedServer, make: MakeClient, fake_time: FakeTime
) -> None:
    server.on("POST", REGISTER, Reply(503))
    began_at = fake_time.now_s

    with pytest.raises(ServerFailed):
        make().wait_for_next(timeout_s=7)

    assert fake_time.now_s - began_at <= 7.5


def test_wait_does_not_outlive_a_lasting_refusal(server: ScriptedServer, make: MakeClient) -> None:
    server.on("GET", LATEST, json_reply({"code": "not_registered"}, 403))

    with pytest.raises(NotAllowed):
        make().wait_for_next(timeout_s=10_000)

    assert len(server.calls("GET", LATEST)) == 1


# Scores


def test_scores_are_of_the_last_pulled_aggregate(
    server: ScriptedServer, make: MakeClient, weights: Weights
) -> None:
    server.on("GET", LATEST, weights_reply(weights, aggregate=7))
    server.on("POST", SCORES, json_reply({"id": 1}, 201))
    client = make()
    client.pull()

    assert client.report_scores({"f1": 0.5}) == {"id": 1}
    client.report_scores({"f1": 0.5}, aggregate=6)

    first, second = (seen.json() for seen in server.calls("POST", SCORES))
    assert first == {"aggregate": 7, "client": "c-17", "validation_results": {"f1": 0.5}}
    assert second["aggregate"] == 6


def test_scores_need_an_aggregate(make: MakeClient) -> None:
    with pytest.raises(ValueError, match="pull one first"):
        make().report_scores({"f1": 0.5})


# The object itself


def test_client_is_a_context_manager_and_shows_no_secret(
    server: ScriptedServer, make: MakeClient, weights: Weights, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.on("POST", UPDATES, json_reply({"id": 5}, 201))

    with make(enrolment_token="t0ken") as client:
        client.push(weights)

    shown = caplog.text + repr(client)
    assert (
        f"update_pushed model=3 update=5 base_aggregate=None bytes={len(safetensors.encode(weights))}"
        in shown
    )
    assert "client_registered model=3 client=c-17" in shown
    assert not any(secret in shown for secret in ("s3cr3t", "t0ken", str(weights["b"][0])))
    with pytest.raises(RuntimeError):
        client.me()


def test_default_of_base_aggregate_says_what_it_is(make: MakeClient) -> None:
    from fma_connect.clients.client import LAST_PULLED

    assert repr(LAST_PULLED) == "<the last pulled>"
    assert "model=3" in repr(make())


def test_metrics_too_long_for_an_old_server_are_refused(server: ScriptedServer, make: MakeClient) -> None:
    with pytest.raises(InvalidArgument, match="in the URL"):
        make().push({"w": np.ones(1)}, metrics={"log": "x" * 40_000})  # it has no uploads


# What strategies keep and say


def test_state_is_that_of_the_last_pulled_aggregate(server: ScriptedServer, make: MakeClient) -> None:
    control = np.array([1.0, 2.0])
    server.on("GET", LATEST, weights_reply({"w": np.zeros(2)}, aggregate=7))
    server.on(
        "GET",
        "api/v1/model_aggregates/7/state/",
        weights_reply({"aggregator.c/w": control, "num_steps": np.array(3)}),
    )
    client = make()
    client.pull()
    [(name, array)] = client.state("aggregator.c").items()
    assert (name, array.tolist()) == ("w", [1.0, 2.0])
    with pytest.raises(ValueError, match=r"there is no state 'c'; the strategy keeps aggregator\.c"):
        client.state("c")


def test_state_is_empty_before_the_first_aggregate_and_where_none_is_kept(
    server: ScriptedServer, make: MakeClient
) -> None:
    client = make()
    assert client.state("aggregator.c") == {}
    server.on("GET", LATEST, weights_reply({"w": np.zeros(2)}, aggregate=7))
    server.on("GET", "api/v1/model_aggregates/7/state/", json_reply({"detail": "Not found."}, 404))
    client.pull()
    assert client.state("aggregator.c") == {}


def test_client_config_is_that_of_the_newest_round(server: ScriptedServer, make: MakeClient) -> None:
    server.on("GET", "api/v1/models/3/rounds/", json_reply([{"number": 4, "client_config": {"mu": 0.01}}]))
    assert make().client_config() == {"mu": 0.01}
