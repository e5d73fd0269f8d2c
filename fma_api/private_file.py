"""A file with a secret: for its owner alone, there as a whole or not at all, and never written over."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Begun:
    """A file that is not there yet; `part` is its place until `finish`."""

    def __init__(self, part: Path, path: Path, descriptor: int) -> None:
        self.part = part
        self._path = path
        self._descriptor = descriptor

    def finish(self, content: str) -> None:
        """Write the file, and give it its name. Raises FileExistsError and other OSErrors; `part` has it then."""
        with open(self._descriptor, "w", closefd=False) as file:
            file.write(content)
            file.flush()
            os.fsync(self._descriptor)
        os.link(self.part, self._path)  # other than a rename, it replaces nothing


@contextmanager
def begin(path: Path) -> Iterator[Begun]:
    """Begin a new file of mode 0600 beside its place, and remove what is left of it in the end."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        yield Begun(part, path, descriptor)
    finally:
        os.close(descriptor)
        part.unlink(missing_ok=True)
