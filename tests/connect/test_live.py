"""The clients against a real server and its worker, and FMA's own client beside them."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from fma_connect import Client, DeveloperClient, Pulled, exceptions
from fma_connect.adapters import nested_lists
from fma_connect.encoding import BytesBody
from fma_core.arrays.codecs import safetensors
from tests.connect.normalised import normalised
from tests.connect.official_client import official_client
from tests.servers.fma import REPOSITORY, FmaServer, StartFma, User

pytestmark = [pytest.mark.processes, pytest.mark.slow]

SCRIPT = Path(__file__).with_name("old_client_script.py")
PATIENCE_S = 60.0

Weights = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FmaServer]:
    with ExitStack() as stack:
        yield StartFma(tmp_path_factory.mktemp("live"), stack)()


@pytest.fixture(scope="module")
def owner(server: FmaServer) -> User:
    return server.install.add_user("ann")


@pytest.fixture(scope="module")
def fma(server: FmaServer, owner: User) -> Iterator[DeveloperClient]:
    with DeveloperClient(server.base_url, token=owner.token) as developer:
        yield developer


@pytest.fixture
def model(fma: DeveloperClient) -> int:
    """A model that aggregates when two clients have answered, with initial weights."""
    created = fma.create_model("two", requirement="require_x_updates", requirement_args=[2])
    number: int = created["id"]
    fma.set_initial_model(number, {"w": np.zeros((3, 4), np.float32), "b": np.zeros(4)})
    return number


@pytest.fixture
def join(server: FmaServer, tmp_path: Path) -> Iterator[Callable[[int, str], Client]]:
    with ExitStack() as stack:

        def join(model: int, name: str) -> Client:
            file = tmp_path / f"{name}.json"
            return stack.enter_context(Client(server.base_url, model, credential_file=file))

        yield join


def start_of(client: Client) -> Pulled:
    pulled = client.pull()
    assert pulled is not None
    return pulled


def trained(pulled: Pulled, seed: int) -> Weights:
    rng = np.random.default_rng(seed)
    return {
        name: (array + rng.normal(size=array.shape)).astype(array.dtype)
        for name, array in pulled.arrays.items()
    }


def weighted_mean(parts: list[tuple[Weights, int]]) -> Weights:
    total = sum(number for _, number in parts)
    return {
        name: sum(number * arrays[name].astype(np.float64) for arrays, number in parts) / total  # type: ignore[misc]
        for name in parts[0][0]
    }


def test_two_rounds_from_registration_to_a_published_file(
    fma: DeveloperClient, model: int, join: Callable[[int, str], Client], tmp_path: Path
) -> None:
    clients = [join(model, "alice"), join(model, "bob")]
    aggregates: list[Any] = []
    for round_number in (1, 2):
        parts = []
        for seed, client in enumerate(clients):
            arrays = trained(start_of(client), 10 * round_number + seed)
            update = client.push(arrays, num_examples=3 + seed, metrics={"loss": 0.5 / round_number})
            assert (update["round"], update["num_examples"]) == (round_number, 3 + seed)
            assert update["base_aggregate"] == (aggregates[-1] if aggregates else None)
            assert update["metrics"] == {"loss": 0.5 / round_number}
            parts.append((arrays, 3 + seed))
        results = [client.wait_for_next(timeout_s=PATIENCE_S) for client in clients]
        expected = weighted_mean(parts)
        for result in results:
            assert result is not None
            assert result.arrays["w"].dtype == np.float32
            assert all(np.allclose(result.arrays[name], expected[name], rtol=1e-6) for name in expected)
        assert results[0] is not None
        aggregates.append(results[0].base_aggregate)
    assert [row["number"] for row in fma.rounds(model) if row["state"] == "published"] == [2, 1]
    assert [row["id"] for row in fma.aggregates(model)] == aggregates[::-1]
    assert len(fma.updates(model)) == 4
    assert {row["status"] for row in fma.updates(model)} == {2}

    newest = aggregates[-1]
    assert newest is not None
    score = clients[0].report_scores({"accuracy": 0.75})
    assert [row["validation_results"] for row in fma.scores(newest)] == [{"accuracy": 0.75}]
    assert score["aggregate"] == newest
    with pytest.raises(exceptions.InvalidRequest):
        clients[0].report_scores({"accuracy": 0.8})

    artifact = fma.publish(newest, "1.0.1")
    assert [row["version"] for row in fma.artifacts(model)] == ["1.0.1", "1.0.0"]
    files = [
        fma.download(to=tmp_path / "a", aggregate=newest),
        fma.download(to=tmp_path / "b", artifact=artifact["id"]),
        fma.download(to=tmp_path / "c", latest_of=model),
    ]
    assert len({file.read_bytes() for file in files}) == 1
    pulled = start_of(clients[0])
    assert all(
        np.array_equal(array, pulled.arrays[name]) for name, array in safetensors.read_file(files[0]).items()
    )


def test_model_without_weights_is_pulled_as_none(
    fma: DeveloperClient, join: Callable[[int, str], Client]
) -> None:
    client = join(fma.create_model("empty")["id"], "alice")

    assert client.pull() is None
    assert client.wait_for_next(timeout_s=0.3) is None
    client.push({"w": np.arange(3.0)})
    first = client.wait_for_next(timeout_s=PATIENCE_S)

    assert first is not None
    assert first.arrays["w"].tolist() == [0.0, 1.0, 2.0]


def test_unchanged_model_is_answered_from_what_is_held(
    model: int, join: Callable[[int, str], Client]
) -> None:
    client = join(model, "alice")

    assert start_of(client) is start_of(client)


def test_restarted_client_is_the_same_client(model: int, join: Callable[[int, str], Client]) -> None:
    first, again, other = join(model, "alice"), join(model, "alice"), join(model, "bob")

    assert first.register() == again.register() != other.register()
    me = again.me()
    assert (me["kind"], me["id"], me["models"]) == ("client", first.register(), [model])


def test_repeated_push_under_one_key_is_one_update(
    fma: DeveloperClient, model: int, join: Callable[[int, str], Client]
) -> None:
    client = join(model, "alice")
    body = safetensors.encode(trained(start_of(client), 1))
    transport = client._transport
    answers = [
        transport.call(
            "POST",
            "api/v1/model_updates/",
            params={"federated_model": model},
            headers=client._who(),
            body=BytesBody(body, "application/vnd.safetensors"),
            idempotency_key="the-same-key-both-times",
        ).json()
        for _ in range(2)
    ]

    assert answers[0] == answers[1]
    assert len(fma.updates(model)) == 1


def test_updates_wait_while_a_model_is_paused(
    fma: DeveloperClient, model: int, join: Callable[[int, str], Client]
) -> None:
    clients = [join(model, "alice"), join(model, "bob")]
    assert fma.pause(model)["allow_aggregation"] is False
    for seed, client in enumerate(clients):
        client.push(trained(start_of(client), seed))
    assert clients[0].wait_for_next(timeout_s=1) is None

    assert fma.resume(model)["allow_aggregation"] is True

    assert clients[0].wait_for_next(timeout_s=PATIENCE_S) is not None


def test_watch_tells_of_rounds_as_they_are_published(
    fma: DeveloperClient, model: int, join: Callable[[int, str], Client]
) -> None:
    def train() -> None:
        for _ in range(2):
            for seed, client in enumerate(clients):
                client.push(trained(start_of(client), seed))
            for client in clients:
                client.wait_for_next(timeout_s=PATIENCE_S)

    clients = [join(model, "alice"), join(model, "bob")]
    training = threading.Thread(target=train)
    watch = fma.watch(model, after_round=0, timeout_s=PATIENCE_S)
    training.start()
    seen = [next(watch), next(watch)]
    training.join()

    assert [(round_["number"], round_["state"]) for round_ in seen] == [(1, "published"), (2, "published")]
    assert all(round_["aggregate"] for round_ in seen)
    assert sorted(seen[0]["clients"]) == sorted(str(client.register()) for client in clients)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda arrays: {**arrays, "w": arrays["w"].T.copy()}, "shape_mismatch"),
        (lambda arrays: {**arrays, "w": arrays["w"].astype(np.float64)}, "dtype_mismatch"),
        (lambda arrays: {"w": arrays["w"]}, "missing_array"),
        (lambda arrays: {**arrays, "x": arrays["w"]}, "unexpected_array"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    fma: DeveloperClient,
    model: int,
    join: Callable[[int, str], Client],
    change: Callable[[Weights], Weights],
    code: str,
) -> None:
    client = join(model, "alice")

    with pytest.raises(exceptions.InvalidRequest) as caught:
        client.push(change(trained(start_of(client), 1)))

    assert (caught.value.status, caught.value.code) == (422, code)
    assert fma.updates(model) == []


def test_packed_updates_are_averaged_like_any_other(
    fma: DeveloperClient, model: int, join: Callable[[int, str], Client]
) -> None:
    alice, bob = join(model, "alice"), join(model, "bob")
    arrays = trained(start_of(alice), 1)

    alice.push(arrays, quantise="int8", compress=True)
    bob.push(arrays, quantise="bfloat16")
    found = alice.wait_for_next(timeout_s=PATIENCE_S)

    assert found is not None
    for name, array in arrays.items():
        assert found.arrays[name].dtype == array.dtype
        assert np.allclose(found.arrays[name], array, atol=np.abs(array).max() * 2**-8)


def test_damaged_body_is_refused(model: int, join: Callable[[int, str], Client]) -> None:
    client = join(model, "alice")
    body = safetensors.encode(trained(start_of(client), 1))

    def push(body: bytes, **headers: str) -> None:
        client._transport.call(
            "POST",
            "api/v1/model_updates/",
            params={"federated_model": model},
            headers={**client._who(), **headers},
            body=BytesBody(body, "application/vnd.safetensors"),
        )

    with pytest.raises(exceptions.InvalidRequest):
        push(body[:-8])
    with pytest.raises(exceptions.InvalidRequest):
        push(body[:-4] + np.float32(np.nan).tobytes())


def test_base_of_another_model_is_refused(
    fma: DeveloperClient, model: int, join: Callable[[int, str], Client]
) -> None:
    other = join(fma.create_model("other")["id"], "bob")
    other.push({"w": np.ones(2)})
    foreign = other.wait_for_next(timeout_s=PATIENCE_S)
    assert foreign is not None
    client = join(model, "alice")

    with pytest.raises(exceptions.InvalidRequest) as caught:
        client.push(trained(start_of(client), 1), base_aggregate=foreign.base_aggregate)

    assert "base_aggregate" in str(caught.value)


def test_strangers_see_nothing(
    server: FmaServer, fma: DeveloperClient, model: int, join: Callable[[int, str], Client], tmp_path: Path
) -> None:
    stranger = DeveloperClient(server.base_url, token=server.install.add_user(f"eve{model}").token)
    nobody = DeveloperClient(server.base_url, token="f" * 40)

    with stranger, nobody:
        assert stranger.models() == []
        with pytest.raises(exceptions.NotFound):
            stranger.model(model)
        with pytest.raises(exceptions.NotFound):
            stranger.download(to=tmp_path / "w", latest_of=model)
        with pytest.raises(exceptions.NotAuthenticated):
            nobody.models()
    assert not (tmp_path / "w").exists()
    with pytest.raises(exceptions.NotFound):
        join(999_999_999, "alice").pull()


def test_unknown_credential_is_told(server: FmaServer, model: int) -> None:
    made_up = "c0ffee00-0000-4000-8000-000000000000"

    with (
        Client(server.base_url, model, credential_file=None, uuid=made_up) as client,
        pytest.raises(exceptions.NotAllowed) as caught,
    ):
        client.pull()

    assert made_up not in str(caught.value)


def test_password_serves_as_well_as_a_token(server: FmaServer) -> None:
    user = server.install.add_user("bert", password="correct horse battery")

    with DeveloperClient(server.base_url, username="bert", password=user.password) as developer:
        assert developer.me()["username"] == "bert"


def test_wrong_aggregator_is_refused_with_the_known_ones(fma: DeveloperClient) -> None:
    with pytest.raises(exceptions.InvalidRequest, match="mean") as caught:
        fma.create_model("wrong", aggregator="maen")

    assert "aggregator" in caught.value.fields


def test_lists_longer_than_a_page_are_complete(
    fma: DeveloperClient, join: Callable[[int, str], Client]
) -> None:
    model = fma.create_model("long", allow_aggregation=False)["id"]
    for number in range(25):
        client = join(model, f"client{number}")
        client.push({"w": np.array([float(number)])})

    updates = fma.updates(model)

    assert len({update["id"] for update in updates}) == len(updates) == 25
    assert len(fma.updates(model, limit=7)) == 7


def test_push_outlives_a_restart_of_the_server(tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = StartFma(tmp_path, stack)(worker=False)
        port = server.base_url.rpartition(":")[2]
        fma = stack.enter_context(
            DeveloperClient(server.base_url, token=server.install.add_user("ann").token)
        )
        model = fma.create_model("restarted")["id"]
        client = stack.enter_context(
            Client(server.base_url, model, credential_file=tmp_path / "client.json", timeout_s=PATIENCE_S)
        )
        client.register()
        server.process.kill()
        with ThreadPoolExecutor(1) as pool:
            pushing = pool.submit(client.push, {"w": np.ones(3)})
            server.install.start("web", "--data", str(server.data_dir), "--port", port, log_name="web")
            update = pushing.result()

        assert [row["id"] for row in fma.updates(model)] == [update["id"]]


def test_enrolment_token_opens_a_closed_server(tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = StartFma(tmp_path, stack)(
            {"FMA_REGISTRATION": "token", "FMA_ENROLMENT_TOKEN": "open-sesame-open-sesame"}, worker=False
        )
        developer = DeveloperClient(server.base_url, token=server.install.add_user("ann").token)
        with developer:
            model = developer.create_model("guarded")["id"]

        def register(file: str, token: str | None) -> str | None:
            with Client(
                server.base_url, model, credential_file=tmp_path / file, enrolment_token=token
            ) as client:
                return client.register()

        for token in (None, "wrong"):
            with pytest.raises(exceptions.NotAllowed):
                register("refused.json", token)
        assert register("refused.json", "open-sesame-open-sesame") is not None
        # Who is in needs the token no more.
        assert register("refused.json", None) is not None


def run_old_script(server: FmaServer, model: int, weights: list[Any], *, path: Path) -> dict[str, Any]:
    arguments = [server.base_url + "/", str(model), *(json.dumps(value) for value in weights)]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env={**os.environ, "PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


LAYOUTS: dict[str, Any] = {
    "array": (
        [[0.0, 0.0], [0.0, 0.0]],
        [[[1.5, -2.0], [0.1, 4]], [[2.5, 0.0], [0.3, 5]]],
        "avg_values_if_data",
    ),
    "layers": ([[[0.0, 0.0]], [0.0]], [[[[1.5, -2.0]], [0.1]], [[[2.5, 0.0]], [0.3]]], "average_layers"),
    "named": (
        {"w": [[0.0, 0.0]], "b": [0.0]},
        [{"w": [[1.5, -2.0]], "b": [0.1]}, {"w": [[2.5, 0.0]], "b": [0.3]}],
        "avg_values_if_data",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_old_script_sees_the_same_with_the_official_client_and_with_ours(
    server: FmaServer, owner: User, layout: str
) -> None:
    initial, weights, aggregator = LAYOUTS[layout]
    said: dict[str, dict[str, Any]] = {}
    for name, path in (("official", official_client()), ("ours", REPOSITORY)):
        model = httpx.post(
            f"{server.base_url}/api/v1/models/",
            headers=owner.headers,
            json={
                "name": f"{layout} {name}",
                "aggregator": aggregator,
                "requirement": "require_x_updates",
                "requirement_args": [2],
                "allow_aggregation": True,
                "initial_model": initial,
            },
        )
        said[name] = run_old_script(server, model.json()["id"], weights, path=path)

    assert said["official"]["version"] == "0.0.2"
    assert said["ours"]["version"] != "0.0.2"
    assert normalised(said["ours"]["transcript"]) == normalised(said["official"]["transcript"])
    check_transcript(dict(said["official"]["transcript"]), initial, weights)


def check_transcript(answers: dict[str, Any], initial: Any, weights: list[Any]) -> None:
    """Compare the answers with those that every client library must get."""
    arrays = [nested_lists.to_arrays(value) for value in weights]
    mean = {name: (arrays[0][name] + arrays[1][name]) / 2 for name in arrays[0]}
    start = nested_lists.to_arrays(initial)
    assert answers["register"] == answers["register again"]
    assert answers["same uuid"] is answers["returning client"] is True
    assert answers["no aggregate yet"] is answers["too few"] is None
    assert answers["artifact"]["version"] == answers["artifact stays"]["version"] == "1.0.0"
    assert answers["initial model"] == {"values": initial, "aggregate": None}
    for old in (
        "initial model is old",
        "first aggregate is old",
        "latest model is old as well",
        "after the second",
    ):
        assert answers[old] is None
    first, second = answers["first aggregate"], answers["second aggregate"]
    assert first["id"] < second["id"]
    assert answers["latest model"]["aggregate"] == first["id"]
    moved = nested_lists.from_arrays({name: array + 0.375 for name, array in start.items()}, like=initial)
    assert answers["latest model"]["values"] == moved
    assert answers["after the first"]["aggregate"] == second["id"]
    assert answers["after the first"]["values"] == nested_lists.from_arrays(mean, like=initial)
    assert answers["second update of bob"]["base_aggregate"] == first["id"]
    assert answers["scores"]["validation_results"] == {"f1": 0.75, "per_class": [0.5, 1]}
    assert answers["scores"]["client"] == answers["register"]
    statuses = {
        "scores twice": 400,
        "no credential": 401,
        "wrong credential": 401,
        "wrong credential registers": 403,
        "unknown model": 404,
        "wrong shape": 422,
        "unknown base": 400,
    }
    for what, status in statuses.items():
        assert answers[what].startswith(f"An API error occurred (status_code={status}): {{"), answers[what]
    assert answers["not weights"].startswith("An API error occurred (status_code=4")


def test_reports_reach_the_owner(
    fma: DeveloperClient, model: int, owner: User, join: Callable[[int, str], Client]
) -> None:
    client = join(model, "reporting")
    client.describe(device={"kind": "server"}, versions={"framework": "numpy 2"})
    public_id = client.register()
    assert client.report_error(MemoryError(), "a batch of 512", round=1)

    answers = httpx.Client(base_url=f"{fma.url}api/v1/", headers=owner.headers, trust_env=False)
    with answers as api:
        row = api.get(f"clients/{public_id}/").json()
        (error,) = api.get(f"models/{model}/client_errors/").json()

    report = row["telemetry"]
    assert (report["device"]["kind"], report["versions"]["framework"]) == ("server", "numpy 2")
    assert min(report["connectivity"][name] for name in ("ping_ms", "download_mbps", "upload_mbps")) > 0
    assert report["resources"]["num_cpus"] >= 1
    assert (error["code"], error["client"], error["round"]) == ("MemoryError", public_id, 1)


def test_clients_take_turns_until_the_experiment_ends(
    fma: DeveloperClient, join: Callable[[int, str], Client]
) -> None:
    model = fma.create_model(
        "turns",
        round_policy={"goal": 2, "over_selection": 1.0, "num_rounds": 2},
        selector={"name": "round_robin"},
        client_config={"local_epochs": {"$schedule": {"name": "piecewise", "values": [3, 1], "starts": [2]}}},
        allow_aggregation=False,
    )["id"]
    fma.set_initial_model(model, {"w": np.zeros((3, 4), np.float32), "b": np.zeros(4)})
    clients = [join(model, name) for name in ("alice", "bob", "carol")]
    names = [client.register() for client in clients]

    def take_turns(client: Client) -> list[tuple[int, int]]:
        turns = []
        while (joined := client.join(timeout_s=PATIENCE_S)) is not None:
            update = client.push(trained(start_of(client), joined.round))
            assert update["base_aggregate"] == joined.base_aggregate
            turns.append((joined.round, joined.client_config["local_epochs"]))
        return turns

    fma.start(model)
    with ThreadPoolExecutor(3) as pool:
        turns = dict(zip(names, pool.map(take_turns, clients), strict=True))

    for number, epochs in ((1, 3), (2, 1)):
        listed = {row["client"] for row in fma.selection(model, number)["clients"] if row["is_chosen"]}
        assert listed == {name for name, mine in turns.items() if (number, epochs) in mine}
        assert len(listed) == 2
    assert {len(mine) for mine in turns.values()} == {1, 2}
    assert (fma.model(model)["state"], fma.model(model)["end_reason"]) == ("ended", "num_rounds")
    with pytest.raises(exceptions.ExperimentEnded):
        clients[0].push(trained(start_of(clients[0]), 9))


def test_experiment_goes_back_goes_on_and_is_copied(
    fma: DeveloperClient, model: int, join: Callable[[int, str], Client]
) -> None:
    clients = [join(model, "alice"), join(model, "bob")]
    for _ in range(2):
        for client in clients:
            client.push(trained(start_of(client), 1))
        for client in clients:
            assert client.wait_for_next(timeout_s=PATIENCE_S) is not None
    first = fma.aggregates(model)[-1]

    fma.pause(model)
    restored = fma.rewind(model, first["id"])
    copy = fma.clone(model, name="copy", aggregate=first["id"], clients=True)
    fma.change_model(model, requirement_args=[1])
    fma.resume(model)

    assert (restored["parent"], restored["sha256"]) == (first["id"], first["sha256"])
    assert start_of(clients[0]).base_aggregate == restored["id"]
    assert (copy["state"], sorted(copy["clients"])) == ("created", sorted(str(c.register()) for c in clients))
    assert fma.history(model)[0]["changes"]["requirement_args"] == {"before": [2], "after": [1]}
    assert fma.cancel(model)["end_reason"] == "cancelled"
