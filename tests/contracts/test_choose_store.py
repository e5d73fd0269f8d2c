"""From FMA_STORAGE_URL to a store."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from django.test import override_settings

from fma_django.storage import StorageUnavailable, get_store, store_from_url
from fma_django.storage.disk import DiskStore
from fma_django.storage.s3 import S3Store


def test_file_url_gives_a_disk_store() -> None:
    store = store_from_url("file:///srv/fma%20data/storage")

    assert isinstance(store, DiskStore)
    assert store.root == Path("/srv/fma data/storage")


def test_s3_url_gives_an_s3_store(tmp_path: Path) -> None:
    store = store_from_url(
        "s3://bucket/a/b/", s3_endpoint_url="http://127.0.0.1:9000", spool_dir=tmp_path / "sp"
    )

    assert isinstance(store, S3Store)
    assert (store.bucket, store.prefix, store.endpoint_url) == ("bucket", "a/b", "http://127.0.0.1:9000")
    assert store.spool_dir() == tmp_path / "sp"


def test_prefix_may_be_empty() -> None:
    for url in ("s3://bucket", "s3://bucket/"):
        store = store_from_url(url, s3_endpoint_url="")
        assert isinstance(store, S3Store)
        assert (store.prefix, store.endpoint_url) == ("", None)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/srv/fma",
        "http://example.org/fma",
        "file://relative/folder",
        "file:relative",
        "file:///",
        "s3:///prefix",
        "s3://",
        "file://~/weights",
        "s3://key:secret@bucket/prefix",
        "s3://bucket:9000/prefix",
        "s3://bucket/prefix?region=x",
    ],
)
def test_other_urls_are_refused_with_what_was_expected(url: str) -> None:
    with pytest.raises(ValueError, match="storage URL") as error:
        store_from_url(url)

    assert "secret@" not in str(error.value)


def test_s3_spools_in_the_temporary_folder_unless_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    spool = store_from_url("s3://bucket/prefix").spool_dir()

    assert spool.parent == tmp_path
    assert spool.stat().st_mode & 0o777 == 0o700
    assert (
        store_from_url("s3://bucket/other").spool_dir() == spool
    )  # where the sweep of another process looks


def test_spool_laid_out_by_a_stranger_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store = store_from_url("s3://bucket/prefix")
    spool = store.spool_dir()
    spool.rmdir()
    spool.symlink_to(tmp_path)

    with pytest.raises(StorageUnavailable, match="FMA_SPOOL_DIR"):
        store.spool_dir()


def test_get_store_follows_the_settings(tmp_path: Path) -> None:
    with override_settings(FMA_STORAGE_URL=f"file://{tmp_path}/one"):
        first = get_store()
        assert isinstance(first, DiskStore)
        assert first.root == tmp_path / "one"
        assert get_store() is first

    with override_settings(
        FMA_STORAGE_URL="s3://bucket/prefix",
        FMA_S3_ENDPOINT_URL="http://127.0.0.1:9000",
        FMA_SPOOL_DIR=str(tmp_path / "spool"),
    ):
        second = get_store()
        assert isinstance(second, S3Store)
        assert second.endpoint_url == "http://127.0.0.1:9000"
        assert second.spool_dir() == tmp_path / "spool"
