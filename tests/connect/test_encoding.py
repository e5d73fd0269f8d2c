"""Bodies made from arrays, piece by piece; what `push` makes of `compress` and `quantise`."""

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fma_connect import Client
from fma_connect.digest import content_digest
from fma_connect.encoding import BytesBody, EncodedBody, RequestBody, encoded
from fma_connect.exceptions import InvalidRequest
from fma_core.arrays.codecs import safetensors, zstd
from tests.connect.scripted_server import Reply, ScriptedServer, json_reply

UPDATES = "api/v1/model_updates/"
RNG = np.random.default_rng(5)
WEIGHTS: dict[str, np.ndarray] = {
    "big/w": RNG.standard_normal((700, 900)).astype(np.float32),
    "fortran": np.asfortranarray(RNG.standard_normal((30, 40))),
    "steps": np.arange(7),
    "swapped": RNG.standard_normal(50).astype(">f4"),
    **{f"small/{i}": np.full(3, i, np.float16) for i in range(50)},
}
KINDS: tuple[dict[str, Any], ...] = (
    {},
    {"quantise": "int8"},
    {"quantise": "int8_stochastic"},
    {"quantise": "bfloat16"},
    {"compress": True},
    {"compress": True, "quantise": "int8"},
)


def bytes_of(body: RequestBody, start: int = 0) -> bytes:
    return b"".join(body.pieces(start))


def test_plain_bodies_are_the_canonical_file() -> None:
    assert bytes_of(encoded(WEIGHTS)) == safetensors.encode(WEIGHTS)


@pytest.mark.parametrize("how", KINDS, ids=str)
def test_bodies_can_be_sent_again_from_anywhere(how: dict[str, str]) -> None:
    body = encoded(WEIGHTS, **how)  # type: ignore[arg-type]
    whole = bytes_of(body)

    assert len(whole) == body.size_bytes
    assert body.headers["Content-Digest"] == content_digest(whole)
    for start in (0, 1, 7, 100, 2**16, len(whole) // 2, len(whole) - 1, len(whole)):
        assert bytes_of(body, start) == whole[start:]
    assert bytes_of(BytesBody(whole, "x"), 17) == whole[17:]


def test_small_arrays_leave_in_few_pieces() -> None:
    weights = {f"layer{i}": np.ones(100, np.float32) for i in range(300)}

    assert len(list(encoded(weights).pieces())) == 1


@pytest.mark.parametrize("quantise", [None, "int8", "float16"])
def test_memory_never_holds_the_model_twice(quantise: str | None) -> None:
    weights = {f"w{i}": np.ones(2**20, np.float32) for i in range(8)}  # 32 MiB
    tracemalloc.start()
    body = EncodedBody(weights, quantise)  # type: ignore[arg-type]
    assert body.headers
    for _ in body.pieces():
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 4 * 2**20


def test_frames_are_of_the_quantised_body() -> None:
    how = {"quantise": "int8"}
    frame = encoded(WEIGHTS, compress=True, quantise="int8")
    plain = zstd.zstd.decompress(bytes_of(frame))  # type: ignore[attr-defined]

    assert plain == bytes_of(encoded(WEIGHTS, quantise="int8")), how
    assert frame.headers["Content-Encoding"] == "zstd"


@pytest.mark.parametrize("how", KINDS, ids=str)
def test_weights_that_are_not_numbers_are_not_sent(how: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest, match="non_finite_value: array 'w'"):
        encoded({"w": np.array([1.0, np.nan])}, **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("coding", ["gzip", "zstd", "", None, 1])
def test_what_compress_can_be_is_told(coding: object) -> None:
    with pytest.raises(ValueError, match=f"compress can be True, for a zstd frame, or False; got {coding!r}"):
        encoded({"w": np.ones(3)}, compress=coding)  # type: ignore[arg-type]


def test_an_unknown_quantisation_is_named() -> None:
    with pytest.raises(ValueError, match="quantise can be float16, bfloat16, int8"):
        encoded({"w": np.ones(3)}, quantise="int4")  # type: ignore[arg-type]


@pytest.fixture
def client(server: ScriptedServer, tmp_path: Path) -> Iterator[Client]:
    server.on("POST", "api/v1/models/3/register_client/", json_reply({"uuid": "s3cr3t", "id": "c-17"}))
    with Client(server.url, 3, credential_file=tmp_path / "client.json", telemetry=False) as client:
        yield client


def test_push_says_how_it_has_packed(server: ScriptedServer, client: Client) -> None:
    server.on("POST", UPDATES, json_reply({"id": 5}, 201))

    client.push({"w": np.linspace(-1, 1, 255, dtype=np.float32)}, compress=True, quantise="int8")

    (seen,) = server.calls("POST", UPDATES)
    assert seen.headers["content-encoding"] == "zstd"
    assert seen.headers["content-digest"] == content_digest(seen.body)
    arrays = safetensors.decode(zstd.zstd.decompress(seen.body))  # type: ignore[attr-defined]
    assert arrays["w"].dtype == np.int8
    assert arrays["w"].tolist() == list(range(-127, 128))


def problem(status: int, code: str) -> Reply:
    return json_reply({"status": status, "code": code, "detail": "no"}, status)


@pytest.mark.parametrize(
    "reply", [problem(415, "unsupported_coding"), problem(400, "malformed_safetensors"), Reply(415)], ids=str
)
def test_a_server_without_zstd_is_told_plainly(server: ScriptedServer, client: Client, reply: Reply) -> None:
    server.on("POST", UPDATES, reply)

    with pytest.raises(InvalidRequest, match="push with compress=False") as raised:
        client.push({"w": np.ones(3)}, compress=True)
    assert raised.value.status == reply.status


def test_other_refusals_stay_as_they_are(server: ScriptedServer, client: Client) -> None:
    server.on("POST", UPDATES, problem(422, "shape_mismatch"), problem(400, "malformed_safetensors"))
    push: list[Callable[[], object]] = [
        lambda: client.push({"w": np.ones(3)}, compress=True),
        lambda: client.push({"w": np.ones(3)}),
    ]

    for call, code in zip(push, ("shape_mismatch", "malformed_safetensors"), strict=True):
        with pytest.raises(InvalidRequest, match="no$") as raised:
            call()
        assert raised.value.code == code


def test_pushes_share_one_connection(server: ScriptedServer, client: Client) -> None:
    server.on("POST", UPDATES, json_reply({"id": 5}, 201))
    client.register()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("socket.create_connection", None)
        client.push({"w": np.ones(3)})
        client.push({"w": np.ones(3_000_000, np.float16)})
