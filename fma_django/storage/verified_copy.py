"""Write pieces to a local file that appears only when it is the right one."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterable
from pathlib import Path

from fma_django.storage.blob_store import Progress
from fma_django.storage.errors import BlobCorrupt


def write_verified(
    pieces: Iterable[bytes], to: Path, *, sha256: str, size_bytes: int, progress: Progress | None = None
) -> None:
    """Write `pieces` beside `to`, hashing on the way, and rename to `to` when they hash to `sha256`.

    Raises BlobCorrupt otherwise; whatever happens, no part of a file is left.
    """
    part = to.with_name(f".{to.name}.{uuid.uuid4().hex}.part")
    digest = hashlib.sha256()
    written = 0
    try:
        with open(part, "xb") as file:
            for piece in pieces:
                file.write(piece)
                digest.update(piece)
                written += len(piece)
                if progress is not None:
                    progress(min(written / size_bytes, 1.0))
        if digest.hexdigest() != sha256:
            raise BlobCorrupt(
                f"blob {sha256} is damaged: the {written} bytes stored under this name hash to {digest.hexdigest()}",
                sha256=sha256,
                found=digest.hexdigest(),
            )
        os.replace(part, to)
    finally:
        part.unlink(missing_ok=True)
