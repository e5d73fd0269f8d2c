"""Weights that the store hands out by itself: followed there, without the credential and with the server's hash."""

import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fma_connect.digest import content_digest
from fma_connect.download import download
from fma_connect.exceptions import UnexpectedAnswer
from fma_connect.redirect import store_of
from fma_connect.transport import Transport
from tests.connect.conftest import FakeTime
from tests.connect.scripted_server import Reply, ScriptedServer
from tests.connect.test_transport import make

WEIGHTS = bytes(range(256)) * 8
ETAG = f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
SECRET = {"CLIENT-UUID": "secret", "Authorization": "Token secret"}


@pytest.fixture
def store() -> Iterator[ScriptedServer]:
    started = ScriptedServer()
    yield started
    started.close()


@pytest.fixture
def transport(server: ScriptedServer, store: ScriptedServer, fake_time: FakeTime) -> Iterator[Transport]:
    location = f"{store.url}blob?signature=x"
    server.on(
        "GET", "weights", Reply(307, headers={"Location": location, "ETag": ETAG, "FMA-Aggregate": "7"})
    )
    started = make(server.url, fake_time)
    yield started
    started.close()


def of_store(body: bytes = WEIGHTS, status: int = 200, **headers: str) -> Reply:
    return Reply(status, body, {"ETag": '"md5"', **headers})


def test_weights_come_from_the_store_which_never_sees_the_credential(
    store: ScriptedServer, transport: Transport
) -> None:
    store.on("GET", "blob", of_store())

    answer = transport.call("GET", "weights", headers=SECRET)

    assert (answer.body, answer.headers["etag"], answer.headers["fma-aggregate"]) == (WEIGHTS, ETAG, "7")
    [seen] = store.seen
    assert seen.query == {"signature": "x"}
    assert "secret" not in str(seen.headers)


def test_a_store_that_refuses_is_asked_for_anew_at_the_server(
    server: ScriptedServer, store: ScriptedServer, transport: Transport
) -> None:
    store.on("GET", "blob", of_store(b"<Error>expired", 403), of_store())

    assert transport.call("GET", "weights").body == WEIGHTS
    assert len(server.calls("GET", "weights")) == 2


@pytest.mark.parametrize("status", [206, 200])
def test_a_broken_download_goes_on_in_the_store(
    store: ScriptedServer, transport: Transport, tmp_path: Path, status: int
) -> None:
    start = 999
    rest = of_store(WEIGHTS[start:], status, **{"Content-Range": f"bytes {start}-2047/2048"})
    store.on("GET", "blob", Reply(200, WEIGHTS, {"ETag": '"md5"'}, truncate_to=1000), rest)

    path = download(transport, "weights", to=tmp_path / "weights", headers=SECRET)

    assert path is not None
    assert path.read_bytes() == WEIGHTS
    assert [seen.headers.get("range") for seen in store.seen] == [None, f"bytes={start}-"]
    assert [seen.headers.get("if-range") for seen in store.seen] == [None, None]


def test_what_the_store_sends_is_checked_against_the_servers_hash(
    store: ScriptedServer, transport: Transport, tmp_path: Path
) -> None:
    store.on("GET", "blob", of_store(b"forged" * 100), of_store())

    path = download(transport, "weights", to=tmp_path / "weights", headers=SECRET)

    assert path is not None
    assert path.read_bytes() == WEIGHTS


FORGED = b"forged" * 100
OF_FORGED = content_digest(FORGED)
UNCHECKABLE = {
    "a part": of_store(FORGED, 206, **{"Content-Range": "bytes 0-599/600", "Repr-Digest": OF_FORGED}),
    "a part without its range": of_store(FORGED, 206),
    "a part that says it is whole": of_store(FORGED, **{"Content-Range": "bytes 0-599/600"}),  # type: ignore[arg-type]
    "coded": of_store(gzip.compress(FORGED, mtime=0), **{"Content-Encoding": "gzip"}),  # type: ignore[arg-type]
    "coded in a way nobody knows": of_store(FORGED, **{"Content-Encoding": "x"}),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("reply", UNCHECKABLE.values(), ids=UNCHECKABLE.keys())
def test_an_answer_that_the_hash_cannot_be_checked_on_is_not_taken(
    store: ScriptedServer, transport: Transport, tmp_path: Path, reply: Reply
) -> None:
    store.on("GET", "blob", reply, of_store(), reply, of_store())

    assert transport.call("GET", "weights").body == WEIGHTS
    path = download(transport, "weights", to=tmp_path / "weights", headers=SECRET)

    assert path is not None
    assert path.read_bytes() == WEIGHTS
    assert len(store.seen) == 4


def test_nothing_that_the_store_says_of_the_weights_counts(
    store: ScriptedServer, transport: Transport
) -> None:
    own = {"Repr-Digest": OF_FORGED, "Content-Digest": OF_FORGED, "FMA-Aggregate": "9", "FMA-Round": "9"}
    store.on("GET", "blob", of_store(**own, **{"Content-Encoding": "identity"}))  # type: ignore[arg-type]

    headers = transport.call("GET", "weights").headers

    assert {name for name in headers if name.startswith(("fma-", "repr-", "content-d", "content-e"))} == {
        "fma-aggregate"
    }
    assert (headers["etag"], headers["fma-aggregate"]) == (ETAG, "7")


def test_a_second_redirect_is_not_followed(store: ScriptedServer, transport: Transport) -> None:
    store.on("GET", "blob", Reply(307, headers={"Location": "/elsewhere", "ETag": ETAG}), of_store())

    transport.call("GET", "weights")

    assert store.calls("GET", "elsewhere") == []


@pytest.mark.parametrize(
    "reply",
    [
        Reply(307, headers={"Location": "https://store.example/"}),
        Reply(302, headers={"Location": "https://store.example/", "ETag": ETAG}),
        Reply(307, headers={"ETag": ETAG}),
    ],
    ids=["without hash", "another kind", "nowhere"],
)
def test_any_other_redirect_is_an_error(server: ScriptedServer, transport: Transport, reply: Reply) -> None:
    server.on("GET", "weights", reply)

    with pytest.raises(UnexpectedAnswer, match="redirects"):
        transport.call("GET", "weights")


@pytest.mark.parametrize(
    ("asked", "location", "follows"),
    [
        ("https://fma.example/", "https://store.example/b", True),
        ("https://fma.example/", "http://store.example/b", False),
        ("http://fma.example/", "http://store.example/b", True),
        ("https://fma.example/", "ftp://store.example/b", False),
        ("https://fma.example/", "https://user:password@store.example/b", False),
    ],
)
def test_who_came_by_https_stays_with_it(asked: str, location: str, follows: bool) -> None:
    headers = {"Location": location, "ETag": ETAG}
    response = httpx.Response(307, headers=headers, request=httpx.Request("GET", asked))

    assert (store_of(response) is not None) is follows
