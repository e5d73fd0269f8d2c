"""A store is swept by one installation, also when others have copies of its database."""

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from fma_django.errors import StoreNotOurs
from fma_django.models import FederatedModel, StoreOwnership
from fma_django.storage import get_store
from fma_django.work import heartbeat, store_owner, tasks
from fma_django.work.sweep import sweep_files
from tests.django.test_sweep import make_old, orphan
from tests.records import make_model, weights

pytestmark = pytest.mark.django_db

Row = dict[str, Any]


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest, settings: Any) -> None:
    """The store of the tests, or a bucket; what lies there is old."""
    if request.param == "bucket":
        bucket = request.getfixturevalue("s3_bucket")
        settings.FMA_STORAGE_URL = f"s3://{bucket.name}/weights"
        settings.FMA_S3_ENDPOINT_URL = bucket.server.endpoint_url
    settings.FMA_ORPHAN_GRACE_SECONDS = -3600


@pytest.fixture(autouse=True)
def started_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers of a test start with it; the next test has its own."""
    monkeypatch.setattr(heartbeat, "STARTED_ON", timezone.now())


def this_database() -> Row | None:
    row = StoreOwnership.objects.values().first()
    return None if row is None else dict(row)


def be(database: Row | None) -> None:
    """Go on with a database as it was, and with workers that start now: another installation, or a restored dump."""
    StoreOwnership.objects.all().delete()
    heartbeat.STARTED_ON = timezone.now()
    if database is not None:
        StoreOwnership.objects.create(**database)


@pytest.fixture
def model(place: None) -> FederatedModel:
    """A model of an installation that has swept its store."""
    sweep_files()
    return make_model(initial_model=weights())


def sha256_of(model: FederatedModel) -> str:
    return str(model.artifacts.get().sha256)


def test_a_second_installation_deletes_nothing_of_the_first(model: FederatedModel) -> None:
    sha256, first = sha256_of(model), this_database()
    model.delete()  # the second one has no rows
    be(None)
    for _ in range(3):
        with pytest.raises(StoreNotOurs, match="belongs to another installation.*fma store take-over"):
            sweep_files()
    assert get_store().size_bytes(sha256) is not None
    be(first)  # and the first one goes on as before
    assert [sweep_files(), sweep_files()] == [0, 1]


@pytest.mark.parametrize("goes_on", ["the copy", "the first"])
def test_a_copy_that_sweeps_first_deletes_no_newer_file_of_its_origin(
    model: FederatedModel, goes_on: str
) -> None:
    origin = this_database()
    newer = orphan()  # a row of the origin names it, and the dump has no such row
    be(origin)  # a copy, for it starts with what the origin has
    assert sweep_files() == 0
    assert get_store().size_bytes(newer) is not None
    copy = this_database()
    be(origin)
    with pytest.raises(StoreNotOurs, match="copy of this database"):
        sweep_files()
    be(copy if goes_on == "the copy" else origin)
    for _ in range(3):
        with pytest.raises(StoreNotOurs, match="two installations claim"):
            sweep_files()
    assert get_store().size_bytes(newer) is not None


def test_the_first_sweep_of_workers_that_start_anew_deletes_nothing(model: FederatedModel) -> None:
    for _ in range(2):
        be(this_database())
        nobodys = orphan()
        assert [sweep_files(), sweep_files(), sweep_files()] == [0, 1, 0]
        assert get_store().size_bytes(nobodys) is None


def test_after_a_take_over_by_workers_that_start_later_the_second_sweep_deletes(
    model: FederatedModel,
) -> None:
    store_owner.take_over(get_store())
    be(this_database())
    orphan()
    assert [sweep_files(), sweep_files()] == [0, 1]


@pytest.mark.parametrize("who_sweeps_first", ["the copy", "the first"])
def test_a_restored_dump_and_its_origin_do_not_sweep_each_others_files(
    model: FederatedModel, who_sweeps_first: str
) -> None:
    dump = this_database()
    nobodys = orphan()
    if who_sweeps_first == "the first":
        sweep_files()
        be(dump)
        with pytest.raises(StoreNotOurs, match="copy of this database"):
            sweep_files()
    else:
        sweep_files()
        be(dump)
        with pytest.raises(StoreNotOurs):
            sweep_files()
    for database in (dump, this_database()):  # neither knows which one is meant to go on
        be(database)
        with pytest.raises(StoreNotOurs, match=r"two installations claim"):
            sweep_files()
    assert get_store().size_bytes(nobodys) is None


def test_taking_over_lets_one_installation_sweep_and_no_copy_of_it(model: FederatedModel) -> None:
    dump = this_database()
    sweep_files()
    be(dump)
    with pytest.raises(StoreNotOurs):
        sweep_files()

    owner = store_owner.take_over(get_store())

    assert owner != dump["owner"]
    orphan()
    assert [sweep_files() for _ in range(3)] == [1, 0, 0]
    be(dump)
    with pytest.raises(StoreNotOurs, match=f"belongs to another installation, {owner}"):
        sweep_files()
    with pytest.raises(StoreNotOurs, match="belongs to another"):
        sweep_files()


def test_a_store_of_an_earlier_version_belongs_to_the_database_that_names_its_files(place: None) -> None:
    model = make_model(initial_model=weights())
    nobodys = orphan()
    sha256 = sha256_of(model)
    assert store_owner.read_mark(get_store()) is None
    model.delete()
    with pytest.raises(StoreNotOurs, match="no owner"):
        sweep_files()
    assert get_store().size_bytes(sha256) is not None

    make_model(initial_model=weights())

    assert [sweep_files(), sweep_files()] == [0, 1]
    assert get_store().size_bytes(nobodys) is None


def test_an_owner_that_is_pointed_at_a_store_without_a_mark_deletes_nothing_of_others(
    model: FederatedModel, settings: Any, tmp_path: Path
) -> None:
    settings.FMA_STORAGE_URL = f"file://{tmp_path / 'of others'}"
    assert sweep_files() == 0  # an empty one is taken
    settings.FMA_STORAGE_URL = f"file://{tmp_path / 'of yet others'}"
    others = orphan()
    for _ in range(3):
        with pytest.raises(StoreNotOurs, match="no owner"):
            sweep_files()
    assert get_store().size_bytes(others) is not None
    assert store_owner.read_mark(get_store()) is None


def test_a_copy_of_a_database_that_never_swept_stops_at_the_owner(model: FederatedModel) -> None:
    """Production was dumped before it knew owners: copy and origin have no row, and the copy swept first."""
    owner = this_database()
    be(None)
    for _ in range(2):
        with pytest.raises(StoreNotOurs):
            sweep_files()
    be(owner)
    with pytest.raises(StoreNotOurs, match="two installations claim"):
        sweep_files()


@pytest.mark.parametrize("crash", ["before the store has it", "after the store has it"])
def test_a_crash_between_store_and_row_is_no_difference(
    model: FederatedModel, monkeypatch: pytest.MonkeyPatch, crash: str
) -> None:
    store = get_store()
    write: Callable[[bytes], None] = store.write_owner

    def die(data: bytes) -> None:
        if crash.startswith("after"):
            write(data)
        raise ConnectionError

    monkeypatch.setattr(store, "write_owner", die)
    with pytest.raises(ConnectionError):
        sweep_files()
    monkeypatch.undo()
    orphan()
    assert [sweep_files(), sweep_files()] == [1, 0]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("sweeper", ["takes its turn", "finds another turn"])
def test_a_take_over_while_a_worker_writes_its_turn_is_what_the_store_keeps(
    model: FederatedModel, monkeypatch: pytest.MonkeyPatch, sweeper: str
) -> None:
    store = get_store()
    write: Callable[[bytes], None] = store.write_owner
    if sweeper == "finds another turn":
        write(json.dumps({"owner": str(StoreOwnership.objects.get().owner), "turn": "another"}).encode())
    writing, taken_over = threading.Event(), threading.Event()

    def write_slowly(data: bytes) -> None:
        if threading.current_thread() is worker:
            writing.set()
            taken_over.wait(1)  # in vain, where the take-over waits for this
        write(data)

    def sweep() -> None:
        try:
            with suppress(StoreNotOurs):
                sweep_files()
        finally:
            connection.close()

    monkeypatch.setattr(store, "write_owner", write_slowly)
    # Here all files are old, also the one that the take-over is writing.
    monkeypatch.setattr(store, "remove_unfinished", lambda older_than: 0)
    worker = threading.Thread(target=sweep)
    worker.start()
    assert writing.wait(10)
    owner = store_owner.take_over(store)
    taken_over.set()
    worker.join()

    mark, ours = store_owner.read_mark(store), StoreOwnership.objects.get()
    assert mark is not None
    assert (mark.owner, mark.turn) == (str(owner), str(ours.turn))
    orphan()
    assert sweep_files() == 1


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b"\xff", b'{"owner": 1}'])
def test_an_owner_that_cannot_be_read_is_nobody(model: FederatedModel, data: bytes) -> None:
    get_store().write_owner(data)
    with pytest.raises(StoreNotOurs):
        sweep_files()
    store_owner.take_over(get_store())
    assert sweep_files() == 0


def test_the_task_says_why_nothing_is_swept(storage: Path, caplog: pytest.LogCaptureFixture) -> None:
    get_store().write_owner(json.dumps({"owner": "x", "turn": "y"}).encode())
    nobodys = orphan()
    make_old(storage)
    assert tasks.sweep_files() == 0
    assert get_store().size_bytes(nobodys) is not None
    assert "sweep_refused" in caplog.text
    assert "fma store take-over" in caplog.text
