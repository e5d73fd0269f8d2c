import os
import threading
from pathlib import Path

import pytest

from fma_connect.credential import Credential, CredentialFile
from fma_connect.exceptions import CredentialError, InvalidArgument
from fma_connect.invitation import read_invitation

COMPLETE = Credential("https://example.org/", 3, registration_key="k3y", uuid="s3cr3t", client="17")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "folder" / "client.json"


def test_what_is_saved_is_loaded(path: Path) -> None:
    CredentialFile(path).save(COMPLETE)

    assert CredentialFile(str(path)).load() == COMPLETE


def test_missing_file_is_no_credential(path: Path) -> None:
    assert CredentialFile(path).load() is None


def test_file_and_folder_are_for_the_owner_only(path: Path) -> None:
    previous = os.umask(0)
    try:
        CredentialFile(path).save(COMPLETE)
    finally:
        os.umask(previous)

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_file_that_others_can_reach_is_refused(path: Path, mode: int) -> None:
    CredentialFile(path).save(COMPLETE)
    path.chmod(mode)

    with pytest.raises(CredentialError, match=f"has mode 0{mode:o}.*chmod 600"):
        CredentialFile(path).load()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"format": 2}',
        '{"format": 1, "server": "s3cr3t"}',
        '{"format": 1, "server": "x", "model": 3, "uuid": "s3cr3t", "surprise": 1}',
        '{"format": 1, "server": "x", "model": "three", "uuid": "s3cr3t"}',
        '{"format": 1, "server": "x", "model": 3, "uuid": 5}',
    ],
)
def test_damaged_file_is_refused_without_being_quoted(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(content)
    path.chmod(0o600)

    with pytest.raises(CredentialError, match="is damaged") as caught:
        CredentialFile(path).load()

    assert "s3cr3t" not in str(caught.value)


def test_model_that_an_older_version_wrote_as_text_is_a_number(path: Path) -> None:
    CredentialFile(path).save(Credential("https://a/", "3", uuid="s3cr3t"))  # type: ignore[arg-type]

    loaded = CredentialFile(path).load()

    assert loaded is not None
    assert (loaded.model, loaded.uuid) == (3, "s3cr3t")


def test_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(CredentialError, match="cannot be written"):
        CredentialFile(tmp_path / "file" / "client.json").save(COMPLETE)
    with pytest.raises(CredentialError, match="cannot be read"):
        CredentialFile(tmp_path).load()


def test_first_to_begin_wins(path: Path) -> None:
    winners: list[Credential] = []
    start = threading.Barrier(8)

    def begin() -> None:
        start.wait()
        winners.append(CredentialFile(path).begin(Credential("https://example.org/", 3)))

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({winner.registration_key for winner in winners}) == 1
    assert CredentialFile(path).load() == winners[0]
    assert list(path.parent.iterdir()) == [path]


def test_begin_works_without_hard_links(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError("no hard links on this file system")

    monkeypatch.setattr(os, "link", refuse)
    begun = CredentialFile(path).begin(COMPLETE)

    assert begun == CredentialFile(path).load() == COMPLETE
    assert list(path.parent.iterdir()) == [path]


def test_secrets_are_not_shown() -> None:
    assert "s3cr3t" not in repr(COMPLETE)
    assert "k3y" not in repr(COMPLETE)


def test_no_more_of_a_file_is_read_than_it_may_have(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b" " * 70_000)
    path.chmod(0o600)

    with pytest.raises(CredentialError, match="cannot be read: it has more than 65536 bytes"):
        CredentialFile(path).load()
    with pytest.raises(InvalidArgument, match="cannot be read: it has more than 65536 bytes"):
        read_invitation("/dev/zero")
