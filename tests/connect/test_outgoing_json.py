"""Values of callers become JSON with one meaning, or an error that names the place."""

import json
import logging
import math
import uuid
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import PurePosixPath
from types import MappingProxyType, SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from fma_connect import Client, DeveloperClient, WebClient
from fma_connect.exceptions import FMAConnectError, InvalidArgument
from fma_connect.outgoing_json import dumps, metrics_json, positive_int, to_json
from tests.connect.conftest import FakeTime
from tests.connect.scripted_server import ScriptedServer, json_reply

UPDATES = "api/v1/model_updates/"


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Tensor:
    """As torch has it: `tolist` gives a number for no dimensions, and lists otherwise."""

    def __init__(self, content: Any) -> None:
        self._content = content

    def tolist(self) -> Any:
        return self._content


class EagerTensor:
    """As tensorflow has it: no `tolist`, but `numpy`."""

    def __init__(self, content: Any) -> None:
        self._content = content

    def numpy(self) -> Any:
        return np.asarray(self._content)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (ml_dtypes.bfloat16(0.5), 0.5),
        (np.int64(3), 3),
        (np.uint8(3), 3),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.array(0.5), 0.5),
        (np.array([1, 2]), [1, 2]),
        (np.array([[True], [False]]), [[True], [False]]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([0.5], dtype=ml_dtypes.bfloat16), [0.5]),
        (Tensor(0.5), 0.5),
        (Tensor([0.5]), [0.5]),
        (EagerTensor(2.0), 2.0),
        ((1, np.int8(2)), [1, 2]),
        (range(3), [0, 1, 2]),
        ({"b", "a"}, ["a", "b"]),
        ({"a": 1}.keys(), ["a"]),
        (MappingProxyType({"a": np.float64(1)}), {"a": 1.0}),
        (OrderedDict(a=np.int16(1)), {"a": 1}),
        ({1: 2, np.int64(3): 4}, {"1": 2, "3": 4}),
        ({Colour.RED: Level.HIGH}, {"red": 3}),
        (Decimal("0.5"), 0.5),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (np.datetime64("2026-01-02"), "2026-01-02"),
        (date(2026, 1, 2), "2026-01-02"),
        (PurePosixPath("a/b"), "a/b"),
        (None, None),
    ],
)
def test_value_with_one_meaning_is_converted(value: Any, expected: Any) -> None:
    assert json.loads(dumps({"x": value})) == {"x": expected}
    converted = to_json(value)
    assert (converted, type(converted)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": [1.0, math.nan]}, r"config\.a\[1\] is nan"),
        ({"a": np.array([0.0, -np.inf])}, r"config\.a\[1\] is -inf"),
        ({"a": np.float32("nan")}, r"config\.a is nan"),
        ({"a": Decimal("sNaN")}, r"config\.a is nan"),
        ({"a": {"b": object()}}, r"config\.a\.b is a object"),
        ({"a": b"bytes"}, r"config\.a is a bytes"),
        ({"a": 1j}, r"config\.a is a complex"),
        ({"a": np.complex64(1j)}, r"config\.a is a complex"),
        ({(1, 2): 3}, r"config has the key \(1, 2\)"),
        ({1: 2, "1": object()}, "config has two members that are both called '1'"),
        ({"a": np.float32}, r"config\.a is a type"),
        ({"a": {1, "b"}}, r"config\.a is a set"),
    ],
)
def test_what_has_no_json_is_refused_by_its_place(value: Any, place: str) -> None:
    with pytest.raises(InvalidArgument, match=place):
        dumps(value, where="config")


def test_list_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)

    with pytest.raises(InvalidArgument, match="contains itself"):
        dumps(loop)


def test_metric_that_is_not_finite_is_null_and_named(caplog: pytest.LogCaptureFixture) -> None:
    metrics = {"loss": np.float32("nan"), "by_class": {"a": [1, -math.inf]}, "f1": Tensor([[0.5]])}

    assert metrics_json(metrics) == {"loss": None, "by_class": {"a": [1, None]}, "f1": 0.5}
    assert "metric_not_finite metric=metrics.loss value=nan" in caplog.text
    assert "metric=metrics.by_class.a[1] value=-inf" in caplog.text


@pytest.mark.parametrize("value", [3, "3", np.int64(3), np.float32(3), np.array(3), 3.0, Level.HIGH])
def test_whole_number_is_read_from_what_means_one(value: Any) -> None:
    number = positive_int(value, "model")

    assert (number, type(number)) == (3, int)


@pytest.mark.parametrize(
    "value",
    [0, -1, 3.5, "3.5", "x", "", None, True, np.bool_(True), math.nan, math.inf, [3, 4], np.array([3, 4])],
)
def test_what_means_no_whole_number_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="model must be "):
        positive_int(value, "model")


# Each public call


@pytest.fixture
def client(server: ScriptedServer, fake_time: FakeTime) -> Client:
    server.on("POST", "api/v1/models/3/register_client/", json_reply({"uuid": "s3cr3t", "id": "c-17"}))
    server.on("POST", UPDATES, json_reply({"id": 5}, 201))
    server.on("POST", "api/v1/client_aggregate_scores/", json_reply({"id": 5}, 201))
    return Client(server.url, np.int64(3), credential_file=None, telemetry=False, **fake_time.injected)  # type: ignore[arg-type]


def test_numpy_numbers_are_facts_of_an_update(server: ScriptedServer, client: Client) -> None:
    client.push(
        {"w": np.ones(1)},
        num_examples=np.int64(12),  # type: ignore[arg-type]
        base_aggregate=np.float64(7),  # type: ignore[arg-type]
        metrics={"loss": np.float32(0.5)},
    )

    query = server.calls("POST", UPDATES)[0].query
    assert (query["federated_model"], query["num_examples"], query["base_aggregate"]) == ("3", "12", "7")
    assert server.calls("POST", UPDATES)[0].headers["fma-metrics"] == '{"loss":0.5}'


def test_metric_that_is_not_finite_never_costs_the_update(server: ScriptedServer, client: Client) -> None:
    client.push({"w": np.ones(1)}, metrics={"loss": math.nan, "acc": 0.5})

    assert json.loads(server.calls("POST", UPDATES)[0].headers["fma-metrics"]) == {"loss": None, "acc": 0.5}


def test_scores_may_be_of_numpy(server: ScriptedServer, client: Client) -> None:
    client.report_scores({"loss": np.float32(0.5), "bad": math.inf}, aggregate=7)

    [sent] = server.calls("POST", "api/v1/client_aggregate_scores/")
    assert sent.json()["validation_results"] == {"loss": 0.5, "bad": None}


@pytest.mark.parametrize(
    "act",
    [
        lambda client: client.push({"w": np.ones(1)}, metrics=[1, 2]),
        lambda client: client.push({"w": np.ones(1)}, metrics={"a": object()}),
        lambda client: client.push({"w": np.ones(1)}, num_examples=0),
        lambda client: client.push({"w": np.ones(1)}, num_examples="many"),
        lambda client: client.push({"w": np.ones(1)}, base_aggregate=0.5),
        lambda client: client.report_scores({"a": object()}, aggregate=7),
        lambda client: client.describe(device=3),
        lambda client: client.describe(nothing={}),
        lambda client: client.describe(resources={"load": math.nan}),
        lambda client: client.push({"w": np.ones(1)}, quantise="int3"),
        lambda client: client.push({"w": np.ones(1)}, compress="gzip"),
    ],
)
def test_every_error_is_one_of_the_library(
    server: ScriptedServer, client: Client, act: Callable[[Client], None]
) -> None:
    with pytest.raises(FMAConnectError):
        act(client)

    assert server.calls("POST", UPDATES) == []


def test_described_facts_may_be_of_numpy_and_cost_no_report(
    server: ScriptedServer, fake_time: FakeTime
) -> None:
    server.on("POST", "api/v1/models/3/register_client/", json_reply({"uuid": "s3cr3t", "id": "c-17"}))
    server.on("POST", "api/v1/clients/me/telemetry/", json_reply({}))
    with Client(server.url, 3, credential_file=None, **fake_time.injected) as client:
        client.describe(connectivity={"is_unmetered": np.bool_(False)}, resources={"load": np.float32(0.5)})
        client.register()

    [report] = server.calls("POST", "api/v1/clients/me/telemetry/")
    assert report.json()["connectivity"]["is_unmetered"] is False
    assert report.json()["resources"]["load"] == 0.5


def test_error_is_reported_with_whatever_names_it(server: ScriptedServer, fake_time: FakeTime) -> None:
    server.on("POST", "api/v1/models/3/register_client/", json_reply({"uuid": "s3cr3t", "id": "c-17"}))
    server.on("POST", "api/v1/clients/me/errors/", json_reply({}, 201))
    with Client(server.url, 3, credential_file=None, **fake_time.injected) as client:
        assert client.report_error("oom", ValueError("why"), round=np.int64(4))  # type: ignore[arg-type]
        assert client.report_error(17)  # type: ignore[arg-type]
        assert not client.report_error("oom", round="last")  # type: ignore[arg-type]

    first, second = (seen.json() for seen in server.calls("POST", "api/v1/clients/me/errors/"))
    assert first == {"code": "oom", "federated_model": 3, "message": "why", "round": 4}
    assert second["code"] == "17"


def test_models_are_created_and_changed_with_arrays(server: ScriptedServer, fake_time: FakeTime) -> None:
    server.on("POST", "api/v1/models/", json_reply({"id": 3}, 201))
    server.on("PATCH", "api/v1/models/3/", json_reply({"id": 3}))
    with DeveloperClient(server.url, token="t0ken\n", **fake_time.injected) as developer:
        developer.create_model(
            "m",
            requirement="require_x_updates",
            requirement_args=np.array([5]),  # type: ignore[arg-type]
            client_config={"lr": np.float32(0.5), "layers": np.array([1, 2])},
            round_policy=MappingProxyType({"goal": np.int64(3)}),
        )
        developer.change_model(np.int64(3), client_config={"lr": Tensor(0.25)})  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match=r"client_config\.lr is nan"):
            developer.change_model(3, client_config={"lr": math.nan})

    [created], [changed] = server.calls("POST", "api/v1/models/"), server.calls("PATCH", "api/v1/models/3/")
    assert created.headers["authorization"] == "Token t0ken"
    assert created.json()["requirement_args"] == [5]
    assert created.json()["client_config"] == {"lr": 0.5, "layers": [1, 2]}
    assert created.json()["round_policy"] == {"goal": 3}
    assert changed.json() == {"client_config": {"lr": 0.25}}


def test_old_scripts_may_send_arrays(server: ScriptedServer) -> None:
    server.on("POST", UPDATES, json_reply({"id": 5}, 201))
    server.on("POST", "api/v1/client_aggregate_scores/", json_reply({"id": 5}, 201))
    client = WebClient(np.int64(3), uuid=uuid.UUID(int=1), url=server.url)  # type: ignore[arg-type]

    client.send_update({"w": np.ones((1, 2), np.float32)}, base_aggregate=np.int64(4))  # type: ignore[arg-type]
    client.send_val_results({"f1": np.float32(0.5), "loss": math.nan}, np.int64(4))  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match=r"data\.w\[0\] is nan"):
        client.send_update({"w": [math.nan]})

    [update] = server.calls("POST", UPDATES)
    assert update.json() == {"federated_model": 3, "data": {"w": [[1.0, 1.0]]}, "base_aggregate": 4}
    [scores] = server.calls("POST", "api/v1/client_aggregate_scores/")
    assert scores.json()["validation_results"] == {"f1": 0.5, "loss": None}


def test_credential_read_with_a_line_end_works(server: ScriptedServer, fake_time: FakeTime) -> None:
    server.on("POST", "api/v1/models/3/register_client/", json_reply({"uuid": "s3cr3t"}))
    with Client(
        server.url, 3, credential_file=None, uuid="abc\n", enrolment_token="let-me-in\r\n", telemetry=False,
        **fake_time.injected,
    ) as client:  # fmt: skip
        client.register()

    [registration] = server.calls("POST", "api/v1/models/3/register_client/")
    assert registration.headers["client-uuid"] == "abc"
    assert registration.headers["fma-enrolment-token"] == "let-me-in"


@pytest.mark.parametrize("token", ["s3cr\nt", "s3crét"])
def test_credential_that_no_header_may_have_is_refused_and_not_repeated(
    server: ScriptedServer, fake_time: FakeTime, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="fma_connect")
    with (
        DeveloperClient(server.url, token=token, **fake_time.injected) as developer,
        pytest.raises(InvalidArgument, match="header") as caught,
    ):
        developer.me()

    assert "s3cr" not in str(caught.value) + caplog.text
    assert fake_time.sleeps == []


@pytest.mark.torch
def test_tensors_are_numbers_and_lists() -> None:
    torch = pytest.importorskip("torch")
    loss = torch.tensor([0.5], requires_grad=True, dtype=torch.bfloat16)

    assert metrics_json({"loss": loss, "acc": torch.tensor(0.25)}) == {"loss": 0.5, "acc": 0.25}
    assert to_json({"w": loss, "n": torch.tensor([1, 2])}) == {"w": [0.5], "n": [1, 2]}
    assert positive_int(torch.tensor(3), "model") == 3


def test_module_of_arrays_is_no_number() -> None:
    with pytest.raises(InvalidArgument, match="cannot be read: no device"):
        to_json(SimpleNamespace(tolist=_broken))


def _broken() -> None:
    raise RuntimeError("no device")
