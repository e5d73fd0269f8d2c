"""Names in a query or a JSON body that nobody knows: refused, with what was probably meant."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import Any

from rest_framework.serializers import ValidationError

LONGEST_NAME = 80
"""An answer shows no more of a name that somebody sent."""
MOST_NAMES = 20
"""Nor more names than this: comparing one with those that are known takes time."""


def shown(name: object) -> str:
    """A name that somebody sent, as an answer shows it."""
    return str(name)[:LONGEST_NAME]


def refuse_unknown(
    names: Iterable[Any], known: Collection[str], *, says: str, otherwise: str | None, likeness: float = 0.6
) -> None:
    """Raises DRF's ValidationError: a thing that somebody asked for must not silently be left out.

    says: how the message begins, with the place of the name. otherwise: its end where no known name is alike; None
    leaves such a name alone.
    """
    faults: dict[str, list[str]] = {}
    for name in names:
        if name in known:
            continue
        close = get_close_matches(shown(name), known, n=1, cutoff=likeness)
        end = f"; did you mean {close[0]!r}?" if close else otherwise
        if end is not None:
            faults[shown(name)] = [says.format(shown(name)) + end]
        if len(faults) == MOST_NAMES:
            break
    if faults:
        raise ValidationError(faults)


def refuse_misspelt(members: Iterable[Any], known: Collection[str]) -> None:
    """Ignore members that nobody knows, as FMA does, unless they look like a mistake."""
    refuse_unknown(members, known, says="There is no {!r}", otherwise=None, likeness=0.8)
