from collections.abc import Callable
from typing import Any

import pytest

from fma_connect import WebClient, exceptions, settings
from fma_connect.clients import WebClient as WebClientOfClients
from tests.connect.scripted_server import DROP, Reply, ScriptedServer, json_reply

REGISTER = "api/v1/models/3/register_client/"
LATEST_AGGREGATE = "api/v1/models/3/get_latest_aggregate/"
LATEST_MODEL = "api/v1/models/3/get_latest_model/"
ARTIFACT = "api/v1/models/3/get_current_artifact/"
UPDATES = "api/v1/model_updates/"
SCORES = "api/v1/client_aggregate_scores/"


@pytest.fixture
def client(server: ScriptedServer) -> WebClient:
    return WebClient(3, uuid="s3cr3t", url=server.url)


def test_old_imports_and_defaults_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert WebClientOfClients is WebClient
    assert issubclass(exceptions.APIException, Exception)
    assert settings.default_url == "http://127.0.0.1:8000/"
    assert WebClient(3).url == "http://127.0.0.1:8000/"

    monkeypatch.setattr(settings, "default_url", "http://elsewhere/")
    assert WebClient(federated_model_id=3).url == "http://elsewhere/"


def test_properties_answer_what_was_given() -> None:
    client = WebClient(3, "s3cr3t", "http://example.org")

    assert (client.federated_model_id, client.uuid, client.url) == (3, "s3cr3t", "http://example.org")


def test_uuid_registers_a_client_that_has_none(server: ScriptedServer) -> None:
    server.on("POST", REGISTER, json_reply({"uuid": "s3cr3t"}))
    client = WebClient(3, url=server.url.rstrip("/"))

    assert client.uuid == client.uuid == "s3cr3t"

    (seen,) = server.calls("POST", REGISTER)
    assert "client-uuid" not in seen.headers


@pytest.mark.parametrize("status", [200, 201])
def test_registered_client_registers_as_itself(
    server: ScriptedServer, client: WebClient, status: int
) -> None:
    server.on("POST", REGISTER, json_reply({"uuid": "s3cr3t"}, status))

    assert client.register() == "s3cr3t"
    assert server.calls("POST", REGISTER)[0].headers["client-uuid"] == "s3cr3t"


def test_update_is_sent_as_json(server: ScriptedServer, client: WebClient) -> None:
    server.on("POST", UPDATES, json_reply({"id": 1}, 201))

    assert client.send_update([[1.5], [2]], base_aggregate=7) == {"id": 1}
    client.send_update({"w": [1]})

    first, second = server.calls("POST", UPDATES)
    assert first.json() == {"federated_model": 3, "data": [[1.5], [2]], "base_aggregate": 7}
    assert second.json() == {"federated_model": 3, "data": {"w": [1]}, "base_aggregate": None}
    assert first.headers["client-uuid"] == "s3cr3t"


def test_validation_results_are_sent_with_the_own_uuid(server: ScriptedServer, client: WebClient) -> None:
    server.on("POST", SCORES, json_reply({"id": 1}, 201))

    assert client.send_val_results({"f1": 0.5}, 7) == {"id": 1}
    assert server.calls("POST", SCORES)[0].json() == {
        "validation_results": {"f1": 0.5},
        "federated_model": 3,
        "aggregate": 7,
        "client": "s3cr3t",
    }


@pytest.mark.parametrize("artifact", [{}, {"id": 1, "values": "http://…", "version": "1.0.0"}])
def test_current_artifact_is_answered_as_it_is(
    server: ScriptedServer, client: WebClient, artifact: dict[str, Any]
) -> None:
    server.on("GET", ARTIFACT, json_reply(artifact))

    assert client.get_current_artifact() == artifact


def aggregate(number: int) -> Reply:
    return json_reply({"id": number, "result": "http://…"})


def model(number: int | None) -> Reply:
    return json_reply({"values": [1.0], "aggregate": number})


def numbers(answers: list[dict[str, Any] | None], key: str) -> list[Any]:
    return ["-" if answer is None else answer[key] for answer in answers]


def test_each_aggregate_is_new_once(server: ScriptedServer, client: WebClient) -> None:
    server.on("GET", LATEST_AGGREGATE, json_reply({}), aggregate(1), aggregate(1), aggregate(3), aggregate(3))

    answers = [client.check_for_new_model_aggregate() for _ in range(5)]

    assert numbers(answers, "id") == ["-", 1, "-", 3, "-"]


def test_each_model_is_new_once_and_an_artifact_comes_before_all_aggregates(
    server: ScriptedServer, client: WebClient
) -> None:
    server.on("GET", LATEST_MODEL, json_reply({}), model(None), model(None), model(1), model(1), model(2))

    answers = [client.check_for_latest_model() for _ in range(6)]

    assert numbers(answers, "aggregate") == ["-", None, "-", 1, "-", 2]


def test_both_checks_share_what_was_seen(server: ScriptedServer, client: WebClient) -> None:
    server.on("GET", LATEST_AGGREGATE, aggregate(4))
    server.on("GET", LATEST_MODEL, model(4), model(5))

    assert client.check_for_new_model_aggregate() is not None
    assert client.check_for_latest_model() is None
    assert client.check_for_latest_model() is not None


def test_update_after_works_before_anything_was_seen(server: ScriptedServer, client: WebClient) -> None:
    server.on("GET", LATEST_AGGREGATE, aggregate(4))
    server.on("GET", LATEST_MODEL, model(4))

    assert client.check_for_new_model_aggregate(update_after=3) is not None
    assert WebClient(3, "s3cr3t", server.url).check_for_latest_model(update_after=4) is None


def test_update_after_overrides_and_does_not_forget_what_was_seen(
    server: ScriptedServer, client: WebClient
) -> None:
    server.on("GET", LATEST_AGGREGATE, aggregate(4))

    answers = [client.check_for_new_model_aggregate(after) for after in (None, 3, 4, 0, None)]

    assert numbers(answers, "id") == [4, 4, "-", "-", "-"]


CALLS: dict[str, tuple[str, Callable[[WebClient], object]]] = {
    REGISTER: ("POST", lambda client: client.register()),
    UPDATES: ("POST", lambda client: client.send_update([1.0])),
    SCORES: ("POST", lambda client: client.send_val_results({}, 1)),
    LATEST_AGGREGATE: ("GET", lambda client: client.check_for_new_model_aggregate()),
    LATEST_MODEL: ("GET", lambda client: client.check_for_latest_model()),
    ARTIFACT: ("GET", lambda client: client.get_current_artifact()),
}


@pytest.mark.parametrize("path", CALLS)
def test_refusal_is_an_api_exception_with_the_old_text(
    server: ScriptedServer, client: WebClient, path: str
) -> None:
    method, call = CALLS[path]
    server.on(method, path, json_reply({"detail": "no"}, 403))

    with pytest.raises(exceptions.APIException) as caught:
        call(client)

    assert str(caught.value) == "An API error occurred (status_code=403): {'detail': 'no'}"
    assert len(server.seen) == 1


@pytest.mark.parametrize("path", CALLS)
def test_another_success_is_an_api_exception_too(
    server: ScriptedServer, client: WebClient, path: str
) -> None:
    method, call = CALLS[path]
    server.on(method, path, json_reply({"odd": 1}, 202))

    with pytest.raises(exceptions.APIException, match="status_code=202"):
        call(client)


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Reply(502, b"<html>"), r"\(status_code=502\): <html>"),
        (Reply(200, b"<html>"), "JSON was expected"),
        (Reply(302, headers={"Location": "https://elsewhere/"}), "redirects to https://elsewhere/"),
        (DROP, "no answer to GET"),
    ],
)
def test_broken_answer_is_an_api_exception_after_one_attempt(
    server: ScriptedServer, client: WebClient, reply: Reply, text: str
) -> None:
    server.on("GET", LATEST_MODEL, reply)

    with pytest.raises(exceptions.APIException, match=text):
        client.check_for_latest_model()

    assert len(server.seen) == 1


def test_unreachable_server_is_an_os_error_as_it_was_with_requests() -> None:
    with pytest.raises(OSError, match="no answer") as caught:
        WebClient(3, "s3cr3t", "http://127.0.0.1:9").check_for_latest_model()

    assert isinstance(caught.value, exceptions.APIException)
