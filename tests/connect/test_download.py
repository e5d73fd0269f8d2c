import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fma_connect import DeveloperClient
from fma_connect.digest import content_digest
from fma_connect.exceptions import ConnectionFailed, NotFound, UnexpectedAnswer
from fma_core.arrays.codecs import safetensors
from tests.connect.conftest import FakeTime
from tests.connect.scripted_server import DROP, Reply, ScriptedServer, Seen, json_reply

PATH = "api/v1/model_aggregates/7/weights/"
BODY = safetensors.encode({"w": np.random.default_rng(0).normal(size=600_000)})
OTHER_BODY = safetensors.encode({"w": np.random.default_rng(1).normal(size=600_000)})


@pytest.fixture
def developer(server: ScriptedServer, fake_time: FakeTime) -> Iterator[DeveloperClient]:
    with DeveloperClient(server.url, token="t0ken", **fake_time.injected) as developer:
        yield developer


def headers_of(body: bytes) -> dict[str, str]:
    return {"Content-Type": "application/vnd.safetensors", "ETag": f'"{hashlib.sha256(body).hexdigest()}"'}


def whole(body: bytes = BODY, truncate_to: int | None = None) -> Reply:
    return Reply(200, body, headers_of(body), truncate_to)


def rest(seen: Seen) -> Reply:
    """The answer of a server with ranges: the rest when If-Range still holds, else the whole."""
    if seen.headers.get("if-range") != headers_of(BODY)["ETag"]:
        return whole()
    start = int(seen.headers["range"].removeprefix("bytes=").removesuffix("-"))
    return Reply(
        206, BODY[start:], {**headers_of(BODY), "Content-Range": f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"}
    )


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ({"aggregate": 7}, PATH),
        ({"artifact": 2}, "api/v1/model_artifacts/2/weights/"),
        ({"latest_of": 3}, "api/v1/models/3/get_latest_model/"),
    ],
)
def test_weights_arrive_whole_in_a_file(
    server: ScriptedServer, developer: DeveloperClient, tmp_path: Path, source: dict[str, int], path: str
) -> None:
    server.on("GET", path, whole())
    to = tmp_path / "new" / "weights.safetensors"

    assert developer.download(to=to, **source) == to

    assert to.read_bytes() == BODY
    assert list(to.parent.iterdir()) == [to]
    assert server.seen[0].headers["accept"] == "application/vnd.safetensors"
    assert server.seen[0].headers["authorization"] == "Token t0ken"


def test_broken_download_goes_on_where_it_broke(
    server: ScriptedServer, developer: DeveloperClient, tmp_path: Path
) -> None:
    server.on("GET", PATH, whole(truncate_to=3_000_000), DROP, Reply(503), rest)

    developer.download(to=tmp_path / "w", aggregate=7)

    assert (tmp_path / "w").read_bytes() == BODY
    assert server.seen[-1].headers["range"].startswith("bytes=")
    assert server.seen[-1].headers["range"] != "bytes=0-"


def test_download_that_broke_behind_its_last_byte_is_finished(
    server: ScriptedServer, developer: DeveloperClient, tmp_path: Path
) -> None:
    unfinished = Reply(200, BODY + b"?", headers_of(BODY), truncate_to=len(BODY))
    server.on("GET", PATH, unfinished, rest)

    developer.download(to=tmp_path / "w", aggregate=7)

    assert (tmp_path / "w").read_bytes() == BODY
    assert server.seen[1].headers["range"] == f"bytes={len(BODY) - 1}-"


def test_weights_that_changed_meanwhile_are_read_from_the_start(
    server: ScriptedServer, developer: DeveloperClient, tmp_path: Path
) -> None:
    server.on("GET", PATH, whole(OTHER_BODY, truncate_to=3_000_000), rest)

    developer.download(to=tmp_path / "w", aggregate=7)

    assert (tmp_path / "w").read_bytes() == BODY


def test_wrong_range_and_wrong_bytes_start_anew(
    server: ScriptedServer, developer: DeveloperClient, tmp_path: Path
) -> None:
    wrong_range = Reply(206, BODY[:10], {**headers_of(BODY), "Content-Range": "bytes 0-9/10"})
    damaged = Reply(200, BODY[:-1] + b"\x00", headers_of(BODY))
    server.on("GET", PATH, whole(truncate_to=2_000_000), wrong_range, damaged, whole())

    developer.download(to=tmp_path / "w", aggregate=7)

    assert (tmp_path / "w").read_bytes() == BODY
    assert "range" not in server.seen[2].headers
    assert "range" not in server.seen[3].headers


def test_file_that_is_damaged_each_time_is_not_fetched_for_ever(
    server: ScriptedServer, developer: DeveloperClient, tmp_path: Path
) -> None:
    server.on("GET", PATH, Reply(200, BODY[:-1] + b"\x00", headers_of(BODY)))

    with pytest.raises(UnexpectedAnswer, match="answered 3 times, and each time the weights do not match"):
        developer.download(to=tmp_path / "w", aggregate=7)

    assert len(server.seen) == 3
    assert list(tmp_path.iterdir()) == []


def test_repr_digest_serves_where_the_etag_is_no_digest(
    server: ScriptedServer, developer: DeveloperClient, tmp_path: Path
) -> None:
    server.on("GET", PATH, Reply(200, BODY, {"ETag": '"v1"', "Repr-Digest": content_digest(BODY)}))

    developer.download(to=tmp_path / "w", aggregate=7)

    assert (tmp_path / "w").read_bytes() == BODY


def test_failed_download_leaves_the_old_file_and_nothing_else(
    server: ScriptedServer, developer: DeveloperClient, tmp_path: Path
) -> None:
    to = tmp_path / "w"
    to.write_bytes(b"old")
    server.on("GET", PATH, whole(truncate_to=1000))
    with pytest.raises(ConnectionFailed):
        developer.download(to=to, aggregate=7, timeout_s=20)

    server.on("GET", PATH, json_reply({"code": "not_found"}, 404))
    with pytest.raises(NotFound):
        developer.download(to=to, aggregate=7)

    server.on("GET", PATH, json_reply({"w": [1.0]}))
    with pytest.raises(UnexpectedAnswer, match="application/json without a sha256"):
        developer.download(to=to, aggregate=7)

    assert to.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [to]


def test_model_without_weights_is_told(
    server: ScriptedServer, developer: DeveloperClient, tmp_path: Path
) -> None:
    server.on("GET", "api/v1/models/3/get_latest_model/", Reply(204))

    with pytest.raises(UnexpectedAnswer, match="model 3 has no weights yet"):
        developer.download(to=tmp_path / "w", latest_of=3)


@pytest.mark.parametrize("sources", [{}, {"aggregate": 1, "artifact": 2}])
def test_exactly_one_source_is_given(
    developer: DeveloperClient, tmp_path: Path, sources: dict[str, int]
) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        developer.download(to=tmp_path / "w", **sources)
