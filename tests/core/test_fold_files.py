"""The fold and the machine: damaged files, short reads, few descriptors, little memory."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from fma_core.aggregation.aggregators import Mean
from fma_core.arrays.codecs.safetensors import decode, encode
from fma_core.arrays.spec import Spec
from fma_core.engine import UpdateFile, weight_files
from fma_core.engine.ordered_threads import in_order
from fma_core.errors import UnreadableUpdate
from tests.core.weights import fold_bytes, lay_out, store

ROOT = Path(__file__).parents[2]
ROWS = [{"a": np.full(5, i, np.float32), "b": np.full(3, i, np.int64)} for i in range(3)]
SPEC = Spec.of(ROWS[0])
BODY = encode(ROWS[1])

DAMAGE = {
    "cannot be opened": None,
    "must have": BODY[:-1],
    "must have ": BODY + b"\0",
    "must have  ": b"",
    "does not begin": bytes([BODY[0] ^ 1]) + BODY[1:],
    "does not begin ": encode({"a": ROWS[1]["a"], "c": ROWS[1]["b"]}),
    "must have   ": lay_out(ROWS[1], ["b", "a"]),
}


@pytest.mark.parametrize("keep_open", [True, False])
@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_file_is_refused_with_its_label(what, keep_open, tmp_path, monkeypatch):
    if not keep_open:
        monkeypatch.setattr(weight_files, "MAX_OPEN_FILES", 0)
    updates = store(tmp_path, ROWS)
    updates[1].path.unlink()
    if DAMAGE[what] is not None:
        updates[1].path.write_bytes(DAMAGE[what])
    before = open_files()
    with pytest.raises(UnreadableUpdate, match=f"the file of update #1 {what.strip()}") as raised:
        fold_bytes(updates, SPEC, Mean(), tmp_path)
    assert raised.value.facts == {"label": "#1"}
    assert open_files() == before


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_folder_is_no_update(tmp_path):
    with pytest.raises(UnreadableUpdate, match="#7"):
        fold_bytes([UpdateFile(tmp_path, 1, "#7")], SPEC, Mean(), tmp_path)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_file_that_shrinks_on_the_way_is_refused(threads, tmp_path, monkeypatch):
    updates, real = store(tmp_path, ROWS), os.preadv
    calls = iter(range(1000))

    def preadv(fd, buffers, offset):
        return 0 if next(calls) > 6 else real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(UnreadableUpdate, match="ended early"):
        fold_bytes(updates, SPEC, Mean(), tmp_path, threads=threads, block_columns=2)


def test_a_disk_that_fails_is_told(tmp_path, monkeypatch):
    updates, real = store(tmp_path, ROWS), os.preadv
    calls = iter(range(1000))

    def preadv(fd, buffers, offset):
        if next(calls) > 6:
            raise OSError(5, "Input/output error")
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(UnreadableUpdate, match="cannot be read: Input/output error"):
        fold_bytes(updates, SPEC, Mean(), tmp_path)


def test_short_reads_are_continued(tmp_path, monkeypatch):
    updates, real = store(tmp_path, ROWS), os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, offset: real(fd, [buffers[0][:3]], offset))
    assert fold_bytes(updates, SPEC, Mean(), tmp_path) == encode(ROWS[1])


def test_files_beyond_the_open_ones_are_opened_for_each_read(tmp_path, monkeypatch):
    monkeypatch.setattr(weight_files, "MAX_OPEN_FILES", 2)
    assert fold_bytes(store(tmp_path, ROWS), SPEC, Mean(), tmp_path, block_columns=2) == encode(ROWS[1])


def test_unlimited_descriptors(tmp_path, monkeypatch):
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert fold_bytes(store(tmp_path, ROWS), SPEC, Mean(), tmp_path) == encode(ROWS[1])


def in_a_process(program: str, *args: object) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, args)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


FOLD = """
import resource, sys
from pathlib import Path
from fma_core.aggregation.aggregators import Mean
from fma_core.arrays.codecs.safetensors import decode
from fma_core.engine import Threads, UpdateFile, fold
from fma_core.arrays.spec import Spec
from fma_core.aggregation.strategy import Strategy
folder, count, files = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
paths = sorted(folder.glob("update-*"))
updates = [UpdateFile(paths[i % len(paths)], 1 + i % 3, str(i)) for i in range(count)]
with open(paths[0], "rb") as file:
    from fma_core.arrays.codecs.safetensors import read_header
    import os
    spec = read_header(file.read, size_bytes=os.fstat(file.fileno()).st_size).spec
def resident():
    # Not ru_maxrss: a child begins with the peak of the process that started it.
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1])
(folder / "result").touch()
def run(updates):
    fold(updates, spec=spec, strategy=Strategy(Mean()), out=folder / "result", executor=Threads(2))
run(updates[:2])  # what is imported and compiled once, numba for instance, belongs to the process
before = resident()
run(updates)
print(resident() - before)
"""


def test_more_updates_than_the_process_may_have_descriptors(tmp_path):
    rows = [{"w": np.arange(3000, dtype=np.float32) * (i + 1)} for i in range(1200)]
    store(tmp_path, rows)
    paths = sorted(tmp_path.glob("update-*"))
    in_a_process(FOLD, tmp_path, 1200, 1024)
    weights = [1 + i % 3 for i in range(1200)]
    stack = np.stack([decode(path.read_bytes())["w"] for path in paths]).astype(np.float64)
    expected = np.average(stack, axis=0, weights=weights).astype(np.float32)
    assert decode((tmp_path / "result").read_bytes())["w"].tobytes() == expected.tobytes()


def test_very_few_descriptors(tmp_path):
    store(tmp_path, ROWS)
    in_a_process(FOLD, tmp_path, 300, 24)


def test_memory_does_not_grow_with_the_number_of_updates(tmp_path):
    # 8 MB each: 100 of them would be 800 MB, and even the result alone is never in memory.
    store(tmp_path, [{"w": np.ones(2_000_000, np.float32)}])
    few, many = (int(in_a_process(FOLD, tmp_path, count, 256)) for count in (4, 100))
    assert many < few + 4_000
    assert many < 24_000


def test_errors_in_threads_come_in_the_order_of_the_items():
    started = threading.Event()

    def work(item):
        if item == 3:
            started.wait(5)
            raise ValueError("three")
        if item == 4:
            started.set()
            raise ValueError("four")
        return item

    found = []
    with pytest.raises(ValueError, match="three"):
        found.extend(in_order(work, range(100), threads=2))


def test_only_a_few_items_are_under_way():
    taken = []

    def items():
        for i in range(100):
            taken.append(i)
            yield i

    results = in_order(lambda item: item, items(), threads=3)
    assert next(results) == 0
    assert len(taken) < 10
    assert list(results) == list(range(1, 100))
