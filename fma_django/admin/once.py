"""A part of a page is computed once: unfold's template asks five times for each, once to see whether it is empty."""

from collections.abc import Callable
from functools import wraps
from typing import Any


def once_per_row(part: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Keep what a method of an admin says of a row with the row, which lives as long as its request."""
    name = part.__name__

    @wraps(part)
    def kept(row: Any) -> Any:
        said = row.__dict__.setdefault("_shown_in_admin", {})
        if name not in said:
            said[name] = part(row)
        return said[name]

    return kept
