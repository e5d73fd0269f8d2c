"""The small files of keys, secrets and invitations, read whole and yet bounded: a name may lead to any file."""

import errno
import os

MOST_BYTES = 64 * 1024


def read_small_file(path: str | os.PathLike[str], *, most_bytes: int = MOST_BYTES) -> bytes:
    """The bytes of a file. Raises OSError, also for one that has more than this."""
    with open(path, "rb") as file:
        return bounded(file.read(most_bytes + 1), path, most_bytes=most_bytes)


def bounded(content: bytes, path: str | os.PathLike[str], *, most_bytes: int = MOST_BYTES) -> bytes:
    """The content of a file of which one byte more than this was read at most. Raises OSError, which says how many."""
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"it has more than {most_bytes} bytes", os.fspath(path))
    return content
