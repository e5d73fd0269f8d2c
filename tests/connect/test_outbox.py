"""Trained weights are kept on disk until the server has confirmed them, and are one update however often sent."""

import json
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fma_connect import Client, outbox, uploads
from fma_connect.exceptions import ConnectionFailed, LateUpdate, Refused, ServerFailed, UnexpectedAnswer
from fma_core.arrays.codecs import safetensors
from tests.connect.conftest import FakeTime
from tests.connect.recording import Recording
from tests.connect.scripted_server import DROP, Reply, ScriptedServer, Seen, json_reply

REGISTER = "api/v1/models/3/register_client/"
UPDATES = "api/v1/model_updates/"
JOIN = "api/v1/models/3/join/"
LATEST = "api/v1/models/3/get_latest_model/"
ARRAYS = {"w": np.arange(12, dtype=np.float32)}
BODY = safetensors.encode(ARRAYS)
STORED = json_reply({"id": 5}, 201)
NOT_YET = json_reply(
    {"accepted": False, "round": 4, "reason": "not_chosen", "detail": "why", "retry_after_s": 40}
)

MakeClient = Callable[..., Client]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "client.json.update"


@pytest.fixture
def start(server: ScriptedServer, fake_time: FakeTime, tmp_path: Path) -> Iterator[MakeClient]:
    """Start the client, as after a restart of the machine: nothing but its files is left."""
    started: list[Client] = []

    def start(**changes: Any) -> Client:
        options = {"credential_file": tmp_path / "client.json", "telemetry": False, "timeout_s": 20}
        started.append(Client(server.url, 3, **{**options, **fake_time.injected, **changes}))
        return started[-1]

    server.on("POST", REGISTER, json_reply({"uuid": "s3cr3t", "id": "c-17"}))
    server.on("POST", JOIN, NOT_YET)
    server.on("GET", LATEST, Reply(204))
    yield start
    for client in started:
        client.close()


def fail_to_push(client: Client, server: ScriptedServer, reply: Reply = DROP, **facts: Any) -> str:
    """Push to a server that is away; the note of the error."""
    server.on("POST", UPDATES, reply)
    with pytest.raises((ConnectionFailed, ServerFailed, UnexpectedAnswer)) as caught:
        client.push(ARRAYS, **facts)
    server.on("POST", UPDATES, STORED)
    return " ".join(caught.value.__notes__)


@pytest.mark.parametrize("reply", [DROP, Reply(503), Reply(500), Reply(302, headers={"Location": "/login"})])
def test_update_that_does_not_arrive_is_kept_for_its_owner(
    server: ScriptedServer, start: MakeClient, path: Path, reply: Reply
) -> None:
    note = fail_to_push(start(), server, reply)

    assert str(path) in note
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert BODY in path.read_bytes()
    assert b"s3cr3t" not in path.read_bytes()


@pytest.mark.parametrize(
    "act",
    [
        lambda client: client.register(),
        lambda client: client.join(timeout_s=5),
        lambda client: client.join_once(),
        lambda client: client.pull(),
        lambda client: client.wait_for_next(timeout_s=1),
        lambda client: client.send_kept(),
        lambda client: client.push({"w": np.zeros(2)}),
    ],
)
def test_next_call_after_a_restart_sends_it(
    server: ScriptedServer, start: MakeClient, path: Path, act: Callable[[Client], None]
) -> None:
    fail_to_push(start(), server, num_examples=12, base_aggregate=7, metrics={"loss": 0.5})
    first = server.calls("POST", UPDATES)[0]
    server.seen.clear()

    act(start())

    again = server.calls("POST", UPDATES)[0]
    assert (again.query, again.body) == (first.query, BODY)
    for name in ("content-digest", "content-type", "fma-metrics", "idempotency-key"):
        assert again.headers[name] == first.headers[name]
    assert not path.exists()


def test_update_before_the_registration_is_kept_too(
    server: ScriptedServer, start: MakeClient, path: Path
) -> None:
    server.on("POST", REGISTER, DROP)
    with pytest.raises(ConnectionFailed):
        start().push(ARRAYS)
    assert path.exists()
    server.on("POST", REGISTER, json_reply({"uuid": "s3cr3t", "id": "c-17"}))
    server.on("POST", UPDATES, STORED)

    assert start().send_kept() == {"id": 5}


def test_same_update_pushed_again_has_the_same_key(server: ScriptedServer, start: MakeClient) -> None:
    for changes in ({}, {"credential_file": None}):
        server.seen.clear()
        client = start(**changes)
        fail_to_push(client, server) if not changes else _fail_without_file(client, server)
        client.push(ARRAYS)
        client.push(ARRAYS, num_examples=2)

        keys = [seen.headers["idempotency-key"] for seen in server.calls("POST", UPDATES)]
        assert len(set(keys[:-1])) == 1
        assert keys[-1] != keys[0]


def _fail_without_file(client: Client, server: ScriptedServer) -> None:
    server.on("POST", UPDATES, DROP)
    with pytest.raises(ConnectionFailed) as caught:
        client.push(ARRAYS)
    assert not hasattr(caught.value, "__notes__")
    server.on("POST", UPDATES, STORED)


def keys_of(server: ScriptedServer) -> list[str]:
    return [seen.headers["idempotency-key"] for seen in server.calls("POST", UPDATES)]


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    return lambda: monkeypatch.setattr(os, "fsync", full)


def test_same_update_pushed_again_is_kept_no_longer_than_from_the_first_attempt(
    server: ScriptedServer, start: MakeClient, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start()
    now = time.time()
    fail_to_push(client, server)
    kept = path.stat()
    monkeypatch.setattr(time, "time", lambda: now + outbox.KEPT_FOR_S - 60)
    fail_to_push(client, server)
    assert path.stat().st_ino == kept.st_ino
    monkeypatch.setattr(time, "time", lambda: now + outbox.KEPT_FOR_S + 60)
    server.seen.clear()

    start().pull()

    assert server.calls("POST", UPDATES) == []


def test_update_that_could_not_be_kept_has_the_same_key_again(
    server: ScriptedServer, start: MakeClient, full_disk: Callable[[], None]
) -> None:
    client = start()
    fail_to_push(client, server, num_examples=1)
    full_disk()
    server.seen.clear()
    assert not _failed_note(client, server, num_examples=2)
    server.on("POST", UPDATES, STORED)

    client.push(ARRAYS, num_examples=2)

    # The kept one goes first, before each.
    keys = dict.fromkeys(keys_of(server))
    assert len(keys) == 2
    assert keys_of(server)[-1] == list(keys)[1]


def _failed_note(client: Client, server: ScriptedServer, **facts: Any) -> str:
    server.on("POST", UPDATES, DROP)
    with pytest.raises(ConnectionFailed) as caught:
        client.push(ARRAYS, **facts)
    return " ".join(getattr(caught.value, "__notes__", []))


def test_key_in_memory_is_used_no_longer_than_the_server_remembers_it(
    server: ScriptedServer, start: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start(credential_file=None)
    now = time.time()
    _fail_without_file(client, server)
    monkeypatch.setattr(time, "time", lambda: now + outbox.KEPT_FOR_S - 60)
    client.push(ARRAYS)
    assert len(set(keys_of(server))) == 1
    _fail_without_file(client, server)
    old_key = keys_of(server)[-1]
    monkeypatch.setattr(time, "time", lambda: now + 3 * outbox.KEPT_FOR_S)

    client.push(ARRAYS)

    assert keys_of(server)[-1] != old_key


def test_key_in_memory_and_file_removed_is_not_kept_anew_for_longer(
    server: ScriptedServer, start: MakeClient, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start()
    now = time.time()
    fail_to_push(client, server)
    path.unlink()
    monkeypatch.setattr(time, "time", lambda: now + outbox.KEPT_FOR_S - 60)
    fail_to_push(client, server)
    assert len(set(keys_of(server))) == 1
    monkeypatch.setattr(time, "time", lambda: now + outbox.KEPT_FOR_S + 60)
    server.seen.clear()

    start().pull()

    assert server.calls("POST", UPDATES) == []


def test_confirmed_update_leaves_the_key_of_another_one_in_memory(
    server: ScriptedServer, start: MakeClient, full_disk: Callable[[], None]
) -> None:
    client = start()
    fail_to_push(client, server, num_examples=1)
    full_disk()
    _failed_note(client, server, num_examples=2)
    key = keys_of(server)[-1]
    server.on("POST", UPDATES, STORED)
    client.send_kept()

    client.push(ARRAYS, num_examples=2)

    assert keys_of(server)[-1] == key


@pytest.mark.parametrize("status", [403, 404, 422])
def test_refused_registration_costs_no_update(
    server: ScriptedServer, start: MakeClient, path: Path, status: int
) -> None:
    server.on("POST", REGISTER, json_reply({"code": "not_yet", "detail": "ask Anna"}, status))
    with pytest.raises(Refused) as caught:
        start().push(ARRAYS)
    assert str(path) in " ".join(caught.value.__notes__)
    server.on("POST", REGISTER, json_reply({"uuid": "s3cr3t", "id": "c-17"}))
    server.on("POST", UPDATES, STORED)

    assert start().send_kept() == {"id": 5}


@pytest.mark.parametrize(
    "page",
    [
        *(Reply(status, b"<html>log in</html>", {"Content-Type": "text/html"}) for status in (403, 407, 408)),
        Reply(404),
        Reply(200, b"<html>log in</html>", {"Content-Type": "text/html"}),
        json_reply({"message": "Forbidden"}, 403),
    ],
)
@pytest.mark.parametrize("in_parts", [False, True])
def test_page_of_a_proxy_costs_no_update(
    server: ScriptedServer,
    start: MakeClient,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    page: Reply,
    in_parts: bool,
) -> None:
    if in_parts:
        monkeypatch.setattr("fma_connect.clients.client.LEAST_BYTES", len(BODY))
        server.on("POST", "api/v1/uploads/", json_reply({"id": "1", "offset": len(BODY)}, 201))
    server.on("POST", UPDATES, page)
    with pytest.raises((Refused, UnexpectedAnswer)) as caught:
        start().push(ARRAYS)
    assert str(path) in " ".join(caught.value.__notes__)
    server.on("POST", UPDATES, STORED)

    assert start().send_kept() == {"id": 5}

    assert len(set(keys_of(server))) == 1
    assert server.calls("DELETE", "api/v1/uploads/1/") == []


def test_kept_update_is_sent_as_it_was_although_a_newer_one_takes_its_place(
    server: ScriptedServer, start: MakeClient, path: Path
) -> None:
    fail_to_push(start(), server, num_examples=1)
    old = path.read_bytes()
    server.seen.clear()

    def replace(seen: Seen) -> Reply:
        (path.parent / "new").write_bytes(b"other" * 100)
        os.replace(path.parent / "new", path)
        return Reply(503)

    server.on("POST", UPDATES, replace, STORED)

    assert start().send_kept() == {"id": 5}

    assert [seen.body for seen in server.calls("POST", UPDATES)] == [BODY, BODY]
    assert path.read_bytes() != old  # the newer one is left alone


def test_kept_update_that_vanishes_meanwhile_disturbs_nothing(
    server: ScriptedServer, start: MakeClient, path: Path
) -> None:
    fail_to_push(start(), server)

    def remove(seen: Seen) -> Reply:
        path.unlink(missing_ok=True)
        return Reply(503)

    server.on("POST", UPDATES, remove, STORED)

    assert start().send_kept() == {"id": 5}
    assert start().pull() is None


def test_kept_update_is_sent_by_one_at_a_time(server: ScriptedServer, start: MakeClient) -> None:
    fail_to_push(start(), server)
    others: list[Any] = []

    def meanwhile(seen: Seen) -> Reply:
        others.append(start().send_kept())
        return STORED

    server.on("POST", UPDATES, meanwhile)
    server.seen.clear()

    assert start().send_kept() == {"id": 5}

    assert others == [None]
    assert len(server.calls("POST", UPDATES)) == 1


def test_file_that_cannot_be_read_now_stays(
    server: ScriptedServer,
    start: MakeClient,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fail_to_push(start(), server)
    opened = Path.open

    def too_many(self: Path, *args: Any, **options: Any) -> Any:
        if self == path:
            raise OSError(24, "Too many open files")
        return opened(self, *args, **options)

    monkeypatch.setattr(Path, "open", too_many)
    assert start().pull() is None
    assert "kept_update_unreadable" in caplog.text
    monkeypatch.undo()

    assert start().send_kept() == {"id": 5}


def test_file_of_an_earlier_update_is_not_said_to_have_this_one(
    server: ScriptedServer, start: MakeClient, path: Path, full_disk: Callable[[], None]
) -> None:
    client = start()
    fail_to_push(client, server, num_examples=1)
    full_disk()

    assert _failed_note(client, server, num_examples=2) == ""
    assert path.exists()


def test_same_update_pushed_again_reads_the_kept_file_once(
    server: ScriptedServer, start: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start()
    fail_to_push(client, server)
    looks: list[bool] = []
    is_whole = outbox.Kept.is_whole
    monkeypatch.setattr(outbox.Kept, "is_whole", lambda kept: looks.append(True) or is_whole(kept))

    client.push(ARRAYS)

    assert looks == [True]


def test_confirmed_and_refused_updates_are_not_kept(
    server: ScriptedServer, start: MakeClient, path: Path
) -> None:
    server.on("POST", UPDATES, STORED, json_reply({"code": "late_update"}, 409))
    client = start()

    client.push(ARRAYS)
    assert not path.exists()
    with pytest.raises(LateUpdate):
        client.push(ARRAYS)
    assert not path.exists()


def test_kept_update_that_is_refused_later_disturbs_nothing(
    server: ScriptedServer, start: MakeClient, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fail_to_push(start(), server)
    server.on("POST", UPDATES, json_reply({"code": "late_update"}, 409))

    assert start().pull() is None

    assert "kept_update_not_sent" in caplog.text
    assert not path.exists()


def test_server_that_is_still_away_keeps_it_kept(
    server: ScriptedServer, start: MakeClient, path: Path
) -> None:
    fail_to_push(start(), server)
    server.on("POST", UPDATES, DROP)
    server.seen.clear()

    assert start().pull() is None

    assert path.exists()
    assert len(server.calls("POST", UPDATES)) == 1


def test_catching_up_leaves_most_of_the_time_to_the_call(
    server: ScriptedServer, start: MakeClient, path: Path, fake_time: FakeTime
) -> None:
    def hangs(seen: Seen) -> Reply:
        fake_time.now_s += 2.5
        return DROP

    def held(seen: Seen) -> Reply:
        fake_time.now_s += int(seen.query["wait"])
        return NOT_YET

    fail_to_push(start(), server)
    server.on("POST", UPDATES, hangs)
    server.on("POST", JOIN, held)
    server.seen.clear()
    began_at = fake_time.now_s
    http = Recording()

    assert start(http=http).join(timeout_s=10) is None

    asked = zip(server.seen, http.first_timeouts, strict=True)
    assert [round(timeouts["read"], 1) for seen, timeouts in asked if seen.path == f"/{UPDATES}"] == [2.5]
    assert [seen.query["wait"] for seen in server.calls("POST", JOIN)] == ["7"]
    assert fake_time.now_s - began_at <= 10.5
    assert path.exists()


@pytest.mark.parametrize("reply", [DROP, Reply(503), Reply(200, b"<html>log in</html>")])
def test_catching_up_is_not_tried_at_every_poll(
    server: ScriptedServer, start: MakeClient, path: Path, fake_time: FakeTime, reply: Reply
) -> None:
    fail_to_push(start(), server)
    server.on("POST", UPDATES, reply)
    soon = {"accepted": False, "round": 4, "reason": "not_chosen", "detail": "why", "retry_after_s": 1}
    server.on("POST", JOIN, json_reply(soon))
    server.seen.clear()
    client = start()

    assert client.join(timeout_s=60) is None
    for _ in range(20):
        client.pull()

    assert len(server.calls("POST", JOIN)) > 50
    assert 2 <= len(server.calls("POST", UPDATES)) <= 12

    server.on("POST", UPDATES, STORED)
    client.join(timeout_s=400)
    assert not path.exists()


def test_push_sends_the_kept_update_however_recently_that_failed(
    server: ScriptedServer, start: MakeClient
) -> None:
    fail_to_push(start(), server, num_examples=1)
    client = start()
    server.on("POST", UPDATES, DROP)
    client.pull()
    server.on("POST", UPDATES, STORED)
    server.seen.clear()

    client.push(ARRAYS, num_examples=2)

    assert [seen.query["num_examples"] for seen in server.calls("POST", UPDATES)] == ["1", "2"]


def test_client_that_is_killed_before_the_answer_sends_it_again(
    server: ScriptedServer, start: MakeClient, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox.Outbox, "remove", lambda *_: None)  # it died before
    server.on("POST", UPDATES, STORED)
    start().push(ARRAYS)
    monkeypatch.undo()

    start().pull()

    first, again = server.calls("POST", UPDATES)
    assert first.headers["idempotency-key"] == again.headers["idempotency-key"]
    assert not path.exists()


def test_promise_ends_before_the_server_forgets_the_key(
    server: ScriptedServer, start: MakeClient, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_to_push(start(), server)
    server.seen.clear()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + outbox.KEPT_FOR_S + 1)

    start().pull()

    assert server.calls("POST", UPDATES) == []
    assert not path.exists()


@pytest.mark.parametrize(
    "content", [b"", b"x", b"\x05\x00\x00\x00\x00\x00\x00\x00[1,2]", b"\xff" * 100, None]
)
def test_damaged_file_is_never_sent(
    server: ScriptedServer, start: MakeClient, path: Path, content: bytes | None
) -> None:
    fail_to_push(start(), server)
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f" if content is None else content)
    server.seen.clear()

    start().pull()

    assert server.calls("POST", UPDATES) == []
    assert not path.exists()


def test_update_of_another_client_is_never_sent(
    server: ScriptedServer, start: MakeClient, path: Path, tmp_path: Path
) -> None:
    fail_to_push(start(), server)
    (tmp_path / "client.json").unlink()  # the next start is a new client
    server.seen.clear()

    start().pull()

    assert server.calls("POST", UPDATES) == []


def test_newer_update_takes_the_place_of_one_that_cannot_be_sent(
    server: ScriptedServer, start: MakeClient
) -> None:
    client = start()
    fail_to_push(client, server)
    server.on("POST", UPDATES, DROP)
    with pytest.raises(ConnectionFailed):
        client.push({"w": np.zeros(2)})
    server.on("POST", UPDATES, STORED)
    server.seen.clear()

    start().pull()

    assert [seen.body for seen in server.calls("POST", UPDATES)] == [safetensors.encode({"w": np.zeros(2)})]


def test_nothing_is_written_where_it_is_not_wanted(
    server: ScriptedServer, start: MakeClient, path: Path
) -> None:
    client = start(keep_unsent=False)
    server.on("POST", UPDATES, DROP)
    with pytest.raises(ConnectionFailed):
        client.push(ARRAYS)

    assert not path.exists()
    assert client.send_kept() is None


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """No locks, and no file is removed or replaced while it is open."""

    def refuse_if_open(path: str | os.PathLike[str]) -> None:
        for descriptor in Path("/proc/self/fd").iterdir():
            try:
                is_it = os.path.samestat(descriptor.stat(), Path(path).stat())
            except OSError:  # one of the two is gone
                continue
            if is_it:
                raise PermissionError(13, "The process cannot access the file because it is being used")

    unlink_anyway, replace_anyway = Path.unlink, os.replace

    def unlink(path: Path, missing_ok: bool = False) -> None:
        refuse_if_open(path)
        unlink_anyway(path, missing_ok)

    def replace(source: str, target: Path) -> None:
        refuse_if_open(target)
        replace_anyway(source, target)

    monkeypatch.setattr(outbox, "fcntl", None)
    monkeypatch.setattr(Path, "unlink", unlink)
    monkeypatch.setattr(os, "replace", replace)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs the list of open files")
@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize(
    "reply", [STORED, json_reply({"code": "late_update"}, 409), json_reply({"code": "shape_mismatch"}, 422)]
)
@pytest.mark.parametrize(
    "act",
    [
        lambda client: client.pull(),
        lambda client: client.send_kept(),
        lambda client: client.push(ARRAYS),
        lambda client: client.push({"w": np.zeros(2)}),
    ],
    ids=["catch up", "send", "the same", "another"],
)
def test_no_file_is_removed_or_replaced_while_it_is_open(
    server: ScriptedServer, start: MakeClient, path: Path, act: Callable[[Client], None], reply: Reply
) -> None:
    fail_to_push(start(), server)
    server.on("POST", UPDATES, reply)

    with suppress(Refused):
        act(start())

    assert not path.exists()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs the list of open files")
@pytest.mark.usefixtures("windows")
def test_damaged_file_is_removed_where_open_files_cannot_be(
    server: ScriptedServer, start: MakeClient, path: Path
) -> None:
    for damage in (lambda content: content[:-1], lambda content: b"garbage" * 9, lambda content: b""):
        fail_to_push(start(), server)
        path.write_bytes(damage(path.read_bytes()))

        assert start().send_kept() is None

        assert not path.exists()


def test_update_is_sent_although_the_disk_is_full(
    server: ScriptedServer,
    start: MakeClient,
    full_disk: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = start()
    client.register()
    full_disk()
    server.on("POST", UPDATES, STORED)

    assert client.push(ARRAYS) == {"id": 5}
    assert "update_not_kept" in caplog.text


def test_upload_goes_on_after_a_restart(
    server: ScriptedServer, start: MakeClient, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "PART_BYTES", 40)
    monkeypatch.setattr("fma_connect.clients.client.LEAST_BYTES", len(BODY))
    arrived: list[bytes] = []
    keys: list[str] = []

    def begin(seen: Seen) -> Reply:
        keys.append(seen.headers["idempotency-key"])
        return json_reply({"id": "1", "offset": sum(map(len, arrived))}, 201)

    def add(seen: Seen) -> Reply:
        assert int(seen.headers["upload-offset"]) == sum(map(len, arrived))
        if len(arrived) == 1 and len(keys) == 1:
            return Reply(503)
        arrived.append(seen.body)
        return Reply(204, headers={"Upload-Offset": str(sum(map(len, arrived)))})

    server.on("POST", "api/v1/uploads/", begin)
    server.on(
        "HEAD", "api/v1/uploads/1/", lambda _: Reply(headers={"Upload-Offset": str(sum(map(len, arrived)))})
    )
    server.on("PATCH", "api/v1/uploads/1/", add)
    server.on("POST", UPDATES, STORED)
    with pytest.raises(ServerFailed):
        start().push(ARRAYS, metrics={"loss": 0.5})

    assert start().send_kept() == {"id": 5}

    assert b"".join(arrived) == BODY
    assert len(set(keys)) == 1
    assert server.calls("POST", "api/v1/uploads/")[0].json() == {"metrics": {"loss": 0.5}}
    assert not path.exists()


# Metrics


def test_metrics_go_in_a_header_and_never_in_the_query(
    server: ScriptedServer, start: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.on("POST", UPDATES, STORED)

    start().push(ARRAYS, metrics={"loss": 0.123456, "näme": "ä\n"})

    [sent] = server.calls("POST", UPDATES)
    assert sent.query == {"federated_model": "3"}
    assert json.loads(sent.headers["fma-metrics"]) == {"loss": 0.123456, "näme": "ä\n"}
    assert "0.123456" not in caplog.text


def test_metrics_too_long_for_a_header_go_in_a_body(
    server: ScriptedServer, start: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.on("POST", "api/v1/uploads/", json_reply({"id": "1", "offset": 0}, 201))
    server.on("PATCH", "api/v1/uploads/1/", Reply(204, headers={"Upload-Offset": str(len(BODY))}))
    server.on("POST", UPDATES, STORED)
    metrics = {f"class {number}": number / 7 for number in range(1500)}

    start().push(ARRAYS, metrics=metrics)

    [begun] = server.calls("POST", "api/v1/uploads/")
    assert begun.json() == {"metrics": metrics}
    assert begun.query == {"federated_model": "3"}
    assert all(sum(map(len, [*seen.headers.values(), *seen.query.values()])) < 4096 for seen in server.seen)


def test_server_that_does_not_know_the_header_gets_metrics_as_before(
    server: ScriptedServer, start: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    server.on("POST", UPDATES, json_reply({"id": 5, "metrics": {}}, 201))
    client = start()
    client.push(ARRAYS, metrics={"loss": 0.5})
    client.push(ARRAYS, metrics={"loss": 0.25})

    assert "metrics_lost update=5" in caplog.text
    assert server.calls("POST", UPDATES)[1].query["metrics"] == '{"loss":0.25}'
