"""The process that parses large JSON: it gives what this process would, and its end is nobody else's."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fma_core.arrays.codecs import json_bytes
from fma_core.arrays.codecs.safetensors import Limits
from fma_core.arrays.spec import Spec
from fma_core.errors import FMAError, TooLarge
from fma_django.errors import JsonProcessEnded, MemoryInUse
from fma_django.record import json_process
from fma_django.record.json_process import HeldJson, LargeJson
from fma_django.record.json_program import NICE
from fma_django.record.json_weights import Wanted, weights_of

SPEC = Spec.of({"w": np.zeros((2, 2), np.float32), "n": np.zeros(2, np.int8)})
ANY = Wanted(
    spec=None, layout=None, schema=None, limits=Limits(max_bytes=2**20, max_arrays=100), field="data"
)
LIKE_THE_MODEL = Wanted(
    spec=SPEC, layout="named", schema=None, limits=Limits(max_bytes=200, max_arrays=100), field="data"
)
WITH_SCHEMA = Wanted(
    spec=None,
    layout=None,
    schema={"type": "object", "properties": {"w": {"maxItems": 1}}},
    limits=Limits(max_bytes=2**20, max_arrays=100),
    field="data",
)
VALID = {"w": [[1.5, -0.0], [3, 4e-320]], "n": [1, -128]}


@pytest.fixture
def process() -> Iterator[int]:
    """The pid of the process, which is idle."""
    LargeJson([b"[]"], 2).close()
    yield pid()
    with_process().end()


def with_process() -> Any:
    process = json_process._place._process
    assert process is not None
    return process


def pid() -> int:
    return int(with_process()._process.pid)


def large(text: bytes) -> LargeJson:
    pieces = [text[at : at + 7] for at in range(0, len(text), 7)]
    return LargeJson(pieces, len(text))


def fault(error: FMAError) -> tuple[Any, ...]:
    return type(error), error.message, error.facts


def here(text: bytes, weights: str | None, wanted: Wanted) -> tuple[Any, ...]:
    try:
        value = json_bytes.loads(text)
        if weights is None:
            return None, *weights_of(value, wanted)
        if not isinstance(value, dict):
            return (type(value),)
        spec, layout, data = weights_of(value.get(weights), wanted)
    except FMAError as error:
        return fault(error)
    return {**value, weights: None}, spec, layout, data


def there(text: bytes, weights: str | None, wanted: Wanted, path: Path) -> tuple[Any, ...]:
    body = large(text)
    try:
        value = body.parse(weights=weights)
        if weights is not None and not isinstance(value, dict):
            return (type(value),)
        held = value if weights is None else value.get(weights)
        members = None if weights is None else {**value, weights: None}
        if isinstance(held, HeldJson):
            spec, layout, sha256, size_bytes = body.write(path, wanted)
            data = path.read_bytes()
            assert (sha256, size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
            return members, spec, layout, data
        return members, *weights_of(held, wanted)
    except FMAError as error:
        return fault(error)
    finally:
        body.close()


NUMBERS = st.one_of(
    st.integers(-130, 130), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans()
)
LEAVES = st.one_of(NUMBERS, st.none(), st.text(max_size=3))
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["w", "n", "Ж"]), inner, max_size=3)
    ),
    max_leaves=12,
)
RECTANGLES = st.builds(
    lambda rows, columns, number: [[number] * columns] * rows, st.integers(1, 3), st.integers(0, 3), NUMBERS
)
WEIGHTS = st.one_of(
    VALUES, st.fixed_dictionaries({"w": RECTANGLES, "n": st.lists(st.integers(-130, 130), max_size=3)})
)


def text_of(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


@given(st.one_of(WEIGHTS, st.fixed_dictionaries({"data": WEIGHTS}, optional={"metrics": VALUES})), st.data())
@example(VALID, None)
@example({"data": VALID, "metrics": {"loss": 2**64}}, None)
def test_it_gives_and_refuses_what_this_process_would(
    tmp_path_factory: pytest.TempPathFactory, value: Any, data: Any
) -> None:
    path = tmp_path_factory.mktemp("weights") / "weights"
    text = text_of(value)
    if data is not None and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(text) - 1))
        text = text[:at] + data.draw(st.binary(max_size=2)) + text[at + 1 :]
    for wanted in (ANY, LIKE_THE_MODEL, WITH_SCHEMA):
        for weights in (None, "data"):
            assert there(text or b" ", weights, wanted, path) == here(text or b" ", weights, wanted)


MALFORMED = [
    b"\xff",
    b"[1,",
    b"[NaN]",
    b'{"data": [1e400]}',
    b'{"data": [-Infinity]}',
    b"[" * 251 + b"]" * 251,
    b'{"data": %s}' % (b"[" * 250 + b"]" * 250),
    b'"\\ud800"',
    b'{"data": [1], "data": [2]}',
    b'{"data": [[1], [2, 3]]}',
    b'{"data": {"w": [[1, 2], [3, 4]], "n": [128, 0]}}',
    b'{"data": {"w": [[1, 2], [3, 1e39]], "n": [1, 0]}}',
    b'{"data": {"w": [[1, 2], [3, "x"]], "n": [1, 0]}}',
    b'{"data": {"w": [[1, 2], [3, 4]]}}',
    b'{"data": {}}',
    b'{"data": "text"}',
    b'{"data": null}',
    b'{"data": %s}' % (b"[" * 40 + b"]" * 40),
    b'{"data": [%s]}' % b",".join([b"1"] * 200),
]


@pytest.mark.parametrize("text", MALFORMED)
@pytest.mark.parametrize("wanted", [ANY, LIKE_THE_MODEL, WITH_SCHEMA])
@pytest.mark.parametrize("weights", [None, "data"])
def test_it_refuses_in_the_same_words(
    tmp_path: Path, text: bytes, wanted: Wanted, weights: str | None
) -> None:
    assert there(text, weights, wanted, tmp_path / "w") == here(text, weights, wanted)


@pytest.mark.parametrize(
    ("value", "layout"),
    [
        ([[1], [1, 2]] * 10_000, None),
        ([[]] * 20_000, "layers"),
        ({f"a{number}": 1 for number in range(20_000)}, None),
    ],
)
@pytest.mark.parametrize("spec", [None, SPEC])
def test_too_many_arrays_are_refused_before_they_are_made(value: Any, layout: Any, spec: Spec | None) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge, match="have 20000 arrays; at most 100 are accepted"):
            weights_of(value, replace(ANY, layout=layout, spec=spec))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_the_fingerprint_is_that_of_the_canonical_json() -> None:
    body = large(b'{"b": [1, 2.50], "a": "\xd0\x96"}')
    body.parse(weights="b")
    found = body.fingerprint()
    body.close()

    assert found == hashlib.sha256(orjson.dumps({"a": "Ж", "b": [1, 2.5]})).hexdigest()


def test_other_members_that_are_large_are_refused() -> None:
    body = large(b'{"data": [1], "more": [%s0]}' % (b"0.5," * 2**18))
    with pytest.raises(FMAError, match="1048576 bytes; they have") as caught:
        body.parse(weights="data")
    body.close()

    assert caught.value.code == "too_large"


def test_other_members_of_many_lists_are_refused() -> None:
    body = large(b'{"data": [1], "more": [%s0]}' % (b"[]," * 20_000))
    with pytest.raises(FMAError, match="20000 lists and objects; this has 20002") as caught:
        body.parse(weights="data")
    body.close()

    assert caught.value.code == "too_large"


def test_it_serves_one_body_after_the_other(process: int, tmp_path: Path) -> None:
    for _ in range(3):
        assert there(text_of(VALID), None, ANY, tmp_path / "w") == here(text_of(VALID), None, ANY)

    assert pid() == process


def test_a_process_that_needed_much_memory_ends_with_its_body(
    process: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_process, "KEPT_BYTES", 100)
    body = large(b"[0.5, 0.5]")
    body.close()

    assert not Path(f"/proc/{process}").exists()


@pytest.mark.parametrize("step", ["parse", "write"])
def test_who_loses_the_process_is_told_and_the_next_gets_another(
    process: int, tmp_path: Path, step: str
) -> None:
    body = large(text_of(VALID))
    if step == "write":
        body.parse(weights=None)
    os.kill(process, signal.SIGKILL)
    with pytest.raises(JsonProcessEnded, match="-9"):
        body.parse(weights=None) if step == "parse" else body.write(tmp_path / "w", ANY)
    body.close()

    assert there(text_of(VALID), None, ANY, tmp_path / "w") == here(text_of(VALID), None, ANY)
    assert pid() != process


def test_an_idle_process_that_was_killed_is_replaced(process: int, tmp_path: Path) -> None:
    os.kill(process, signal.SIGKILL)
    until(lambda: with_process().has_ended)

    assert there(text_of(VALID), None, ANY, tmp_path / "w") == here(text_of(VALID), None, ANY)


def test_a_process_that_stops_is_ended_after_a_time(process: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_process, "MOST_S", 0.2)
    os.kill(process, signal.SIGSTOP)
    with pytest.raises(JsonProcessEnded):  # in the middle of a text that no pipe holds
        large(b"[%s0]" % (b"0.5," * 2**18))

    assert not Path(f"/proc/{process}").exists()


def test_the_process_is_free_when_the_weights_are_written(
    process: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_process, "WAIT_S", 0.1)
    first = large(text_of(VALID))
    first.parse(weights=None)
    first.write(tmp_path / "w", ANY)
    second = large(text_of(VALID))
    first.close()  # leaves the process to the second

    with pytest.raises(MemoryInUse):
        large(b"[]")
    assert second.parse(weights=None) == HeldJson(second)
    second.close()


def test_who_waits_too_long_is_told_to_come_again(process: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_process, "WAIT_S", 0.1)
    first = large(b"[]")
    with pytest.raises(MemoryInUse, match="try again"):
        large(b"[]")
    first.close()

    large(b"[]").close()


def test_those_that_come_at_once_are_served_in_turn(process: int, tmp_path: Path) -> None:
    found: list[Any] = []

    def ask(number: int) -> None:
        found.append(there(text_of([number]), None, ANY, tmp_path / str(number))[-1][-8:])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {np.frombuffer(data, np.float64)[0] for data in found} == set(range(8))


def test_it_ends_when_nobody_needs_it(process: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_process, "IDLE_S", 0.05)
    large(b"[]").close()

    until(lambda: not Path(f"/proc/{process}").exists())
    large(b"[]").close()


def test_a_process_that_nobody_would_end_is_ended_at_once(
    process: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = large(b"[1]")
    with monkeypatch.context() as patched:
        patched.setattr(threading.Timer, "start", Mock(side_effect=RuntimeError("can't start new thread")))
        body.close()

    assert not json_process._place._is_free.locked()
    assert there(b"[1]", None, ANY, tmp_path / "w")[-1] == here(b"[1]", None, ANY)[-1]
    assert pid() != process


def test_it_cannot_be_started_is_said(process: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with_process().end()
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(JsonProcessEnded, match="started"):
        large(b"[]")
    monkeypatch.undo()

    large(b"[]").close()


def test_it_gives_way_and_knows_no_secret(process: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FMA_SECRET_KEY", "PGPASSWORD", "SOME_TOKEN"):
        monkeypatch.setenv(name, "very secret")
    with_process().end()
    large(b"[]").close()

    assert b"very secret" not in Path(f"/proc/{pid()}/environ").read_bytes()
    assert os.getpriority(os.PRIO_PROCESS, pid()) == min(os.getpriority(os.PRIO_PROCESS, 0) + NICE, 19)
    assert Path(f"/proc/{pid()}/oom_score_adj").read_text() == "1000\n"


def test_it_loads_no_django() -> None:
    program = (
        "import sys, fma_django.record.json_program, fma_django.record.json_schema;"
        "print(any(name.partition('.')[0] in ('django', 'rest_framework') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"


PARENT = """
import os, sys, time
from fma_django.record import json_process
body = json_process.LargeJson([b"[" + b"0.5," * 2**20 + b"0]"], 2**22 + 3)
print(json_process._place._process._process.pid, flush=True)
if sys.argv[1] == "busy":
    body._process._line.send(("parse", (None,)))
if sys.argv[1] == "fork" and os.fork() == 0:
    time.sleep(100)
time.sleep(100)
"""


@pytest.mark.parametrize("state", ["idle", "busy", "fork"])
def test_it_does_not_outlive_its_parent(state: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, state], stdout=subprocess.PIPE, text=True, process_group=0
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert Path(f"/proc/{child}").exists()
        try:
            parent.kill()
            until(lambda: not is_running(child))
        finally:
            os.killpg(parent.pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_to_the_whole_service_leave_it_to_its_parent(process: int, number: int) -> None:
    os.kill(process, number)
    large(b"[]").close()

    assert pid() == process


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # nobody may be there who waits for it


def until(is_so: Any, limit_s: float = 20.0) -> None:
    deadline = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)
