"""The requests that the clients send in evaluations, and how they read the answers."""

import json
from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from fma_connect import Client, DeveloperClient
from fma_connect.exceptions import NotAllowed, ServerFailed
from fma_core.arrays.codecs import safetensors
from fma_core.errors import InvalidQuestion
from fma_core.evaluation import Question, Statistics, statistics_of
from tests.connect.conftest import FakeTime
from tests.connect.scripted_server import DROP, Reply, ScriptedServer, Seen, json_reply

ASKED = {"id": 5, "question": {"task": "binary", "labels": [0, 1], "bins": 0, "with_loss": False}}
SAFETENSORS = {"Content-Type": "application/vnd.safetensors"}
WEIGHTS = {"w": np.array([1.0, -1.0])}


@pytest.fixture
def client(server: ScriptedServer, fake_time: FakeTime) -> Iterator[Client]:
    server.on("POST", "api/v1/models/3/register_client/", json_reply({"uuid": "0" * 32, "id": "ann"}))
    server.on("GET", "api/v1/evaluations/5/model/", Reply(200, safetensors.encode(WEIGHTS), SAFETENSORS))
    server.on("POST", "api/v1/evaluations/5/results/", json_reply({"id": 9}, 201))
    with Client(server.url, 3, credential_file=None, **fake_time.injected) as client:
        yield client


@pytest.fixture
def developer(server: ScriptedServer, fake_time: FakeTime) -> Iterator[DeveloperClient]:
    server.on("POST", "api/v1/models/3/evaluations/", json_reply(ASKED, 201))
    with DeveloperClient(server.url, token="t0ken", **fake_time.injected) as developer:
        yield developer


def test_what_waits_is_asked_of_this_model_only(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "api/v1/evaluations/", json_reply([ASKED]))
    assert client.evaluations() == [ASKED]
    assert server.seen[-1].query["federated_model"] == "3"


def test_the_server_may_wait_for_one(server: ScriptedServer, client: Client, fake_time: FakeTime) -> None:
    def held(seen: Seen) -> Reply:
        fake_time.now_s += int(seen.query.get("wait", 0))
        return json_reply([])

    server.on("GET", "api/v1/evaluations/", held)
    client.evaluations()
    client.evaluations(wait_s=30)
    assert [seen.query.get("wait") for seen in server.seen[-2:]] == [None, "30"]


@pytest.mark.parametrize("cut", [DROP, Reply(504)], ids=["drop", "504"])
def test_wait_for_an_evaluation_behind_a_proxy_that_cuts_it_ends_in_time(
    server: ScriptedServer, client: Client, fake_time: FakeTime, cut: Reply
) -> None:
    def proxied(seen: Seen) -> Reply:
        wait_s = int(seen.query.get("wait", 0))
        fake_time.now_s += min(wait_s, 3)
        return cut if wait_s > 3 else json_reply([])

    server.on("GET", "api/v1/evaluations/", proxied)
    began_at = fake_time.now_s

    assert client.evaluations(wait_s=10) == []

    assert 9 <= fake_time.now_s - began_at <= 10.5


def test_wait_for_an_evaluation_of_a_server_that_is_away_ends_in_time(
    server: ScriptedServer, client: Client, fake_time: FakeTime
) -> None:
    server.on("GET", "api/v1/evaluations/", Reply(503))
    began_at = fake_time.now_s

    with pytest.raises(ServerFailed):
        client.evaluations(wait_s=10)

    assert fake_time.now_s - began_at <= 10.5


def test_weights_are_measured_and_only_counts_leave(server: ScriptedServer, client: Client) -> None:
    examples = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0]])

    def measure(weights: Mapping[str, np.ndarray], question: Question) -> Statistics:
        return statistics_of(question, y_true=[1, 1, 1], y_pred=(examples @ weights["w"] > 0).astype(int))

    assert client.evaluate(ASKED, measure) == {"id": 9}

    (sent,) = server.calls("POST", "api/v1/evaluations/5/results/")
    assert sent.json() == {"statistics": {"question": ASKED["question"], "confusion": [[0, 0], [1, 2]]}}


def test_question_that_this_version_does_not_know_is_not_answered(
    server: ScriptedServer, client: Client
) -> None:
    with pytest.raises(InvalidQuestion, match="ranking"):
        client.evaluate({"id": 5, "question": {"task": "ranking"}}, lambda weights, question: None)  # type: ignore[arg-type,return-value]
    assert server.calls("POST", "api/v1/evaluations/5/results/") == []


def test_refusal_is_told(server: ScriptedServer, client: Client) -> None:
    refused = json_reply({"code": "not_selected", "detail": "not chosen"}, 403)
    server.on("POST", "api/v1/evaluations/5/results/", refused)
    statistics = statistics_of(Question("binary"), y_true=[0], y_pred=[0])
    with pytest.raises(NotAllowed, match="not_selected"):
        client.report_evaluation(5, statistics)


def test_opening_says_only_what_was_given(server: ScriptedServer, developer: DeveloperClient) -> None:
    opened = developer.open_evaluation(
        3, Question("binary"), artifact=7, organisations=["north"], deadline_s=60
    )
    assert opened == ASKED
    assert server.seen[-1].json() == {
        "question": ASKED["question"],
        "artifact": 7,
        "organisations": ["north"],
        "deadline_s": 60,
    }


def test_own_weights_travel_as_safetensors(server: ScriptedServer, developer: DeveloperClient) -> None:
    developer.open_evaluation(3, Question("binary"), weights=WEIGHTS, name="mine")
    (sent,) = server.calls("POST", "api/v1/models/3/evaluations/")
    assert safetensors.decode(sent.body)["w"].tolist() == [1.0, -1.0]
    assert json.loads(sent.query["evaluation"]) == {"name": "mine", "question": ASKED["question"]}


def test_evaluations_are_read_and_ended(server: ScriptedServer, developer: DeveloperClient) -> None:
    server.on("GET", "api/v1/models/3/evaluations/", json_reply([ASKED]))
    server.on("GET", "api/v1/evaluations/5/", json_reply(ASKED))
    server.on("GET", "api/v1/evaluations/5/results/", json_reply([{"id": 9}]))
    for end in ("close", "cancel"):
        server.on("POST", f"api/v1/evaluations/5/{end}/", json_reply({**ASKED, "state": end}))

    assert developer.evaluations(3) == [ASKED]
    assert developer.evaluation(5) == ASKED
    assert developer.evaluation_results(5) == [{"id": 9}]
    assert developer.close_evaluation(5)["state"] == "close"
    assert developer.cancel_evaluation(5)["state"] == "cancel"
