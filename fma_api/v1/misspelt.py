"""Members of a JSON body that nobody knows are ignored, as FMA ignores them, unless they look like a mistake."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from rest_framework.serializers import ValidationError


def refuse_misspelt(members: Iterable[Any], known: Iterable[str]) -> None:
    """Raises DRF's ValidationError: a thing that somebody asked for must not silently be left out."""
    names = list(known)
    misspelt = {
        name: [f"There is no {name!r}; did you mean {close[0]!r}?"]
        for name in members
        if name not in names and (close := get_close_matches(str(name), names, n=1, cutoff=0.8))
    }
    if misspelt:
        raise ValidationError(misspelt)
