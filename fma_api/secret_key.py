"""The secret key that `fma serve` makes once and keeps in the data folder, readable by its owner alone."""

import secrets
from contextlib import suppress
from pathlib import Path

from fma_api import private_file
from fma_core.identity.small_file import read_small_file

_NAME = "secret_key"


def read(data_dir: Path) -> str | None:
    """The key that the data folder keeps, if any; OSError when there is one that cannot be read."""
    try:
        return read_small_file(data_dir / _NAME).decode().strip() or None
    except FileNotFoundError:
        return None


def make(data_dir: Path) -> None:
    """Keep a new key in the data folder (mode 0600), unless one is there.

    Two commands that start at once agree on one key: the file appears whole, by a hard link, and the first link wins.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    if read(data_dir):
        return
    with private_file.begin(data_dir / _NAME) as begun, suppress(FileExistsError):
        begun.finish(f"{secrets.token_urlsafe(48)}\n")
