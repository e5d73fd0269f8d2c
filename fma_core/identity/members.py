"""The JSON files of keys and certificates: small, and read in one way by everybody."""

import json
import os
from typing import Any

MAX_BYTES = 16 * 1024


def read_members(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The members of the object in a file. Raises OSError, and ValueError as `members_of`."""
    with open(path, "rb") as file:
        return members_of(file.read(MAX_BYTES + 1))


def members_of(text: str | bytes) -> dict[str, Any]:
    """The members of the object in a text.

    Raises ValueError for more than MAX_BYTES, for what is no JSON object, and for a member that is there twice.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"at most {MAX_BYTES} bytes are read")
    try:
        members = json.loads(text, object_pairs_hook=_each_once)
    except RecursionError:
        members = None
    if not isinstance(members, dict):
        raise ValueError("it is no JSON object")
    return members


def _each_once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in members}) != len(members):
        raise ValueError("a member is there twice")
    return dict(members)
