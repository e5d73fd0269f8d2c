"""One installation sweeps a store, and no other: the rows of a second one say nothing about the files of the first.

The store has a small object beside its blobs: the id of its owner, and a turn that changes with each sweep. The owner's
database has the same two. Another id is another installation. The same id with another turn is a copy of the database:
both have a claim, so neither sweeps until an operator says which one is the owner (`fma store take-over`).

A copy that is the first to sweep has the right turn. So a turn that was taken before these workers started, maybe by
the database of which theirs is a copy, only lets them take the next one; they delete when that one still stands at the
next sweep. The owner has the time between the two to find the turn changed.
"""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from django.db import transaction
from django.utils import timezone

from fma_django.errors import StoreNotOurs
from fma_django.models import StoreOwnership
from fma_django.record.queries.blobs import named_blobs
from fma_django.storage import BlobStore
from fma_django.work import heartbeat

DISPUTED = "disputed"
HOW = "if this installation owns the store, stop all others that use it and run: fma store take-over"


@dataclass(frozen=True)
class Mark:
    """The object in the store."""

    owner: str
    turn: str


def take_turn(store: BlobStore) -> bool:
    """Give the store its next turn; return whether these workers may delete blobs that none of their rows name.

    They may when the turn that the store had was taken since they started. Raises StoreNotOurs.
    """
    with _locked() as ours:
        mark = read_mark(store)
        if mark is None:
            # Of a version before this one, or new, or another store than at the last sweep. What no row here names is
            # somebody else's.
            if _content(store) == "of others":
                raise StoreNotOurs(f"the store has no owner, and files that no row here names; {HOW}")
        elif mark.turn == DISPUTED:
            raise StoreNotOurs(
                f"two installations claim the store, one with a copy of the other's database; {HOW}"
            )
        elif mark.owner != str(ours.owner):
            if ours.turn is None and _content(store) == "ours":
                _write(store, Mark(mark.owner, DISPUTED))
            raise StoreNotOurs(f"the store belongs to another installation, {mark.owner}; {HOW}")
        elif mark.turn not in (str(ours.turn), str(ours.next_turn)):
            _write(store, Mark(mark.owner, DISPUTED))
            raise StoreNotOurs(
                f"another installation, with a copy of this database, has swept the store; {HOW}"
            )
    _write_next_turn(store)
    return mark is not None and ours.taken_on is not None and ours.taken_on > heartbeat.STARTED_ON


def take_over(store: BlobStore) -> uuid.UUID:
    """Make this installation the owner, under a new id, and return that; no other one sweeps the store from now on."""
    owner = uuid.uuid4()
    with _locked() as ours:
        ours.owner, ours.turn, ours.next_turn, ours.taken_on = owner, None, None, None
        ours.save()
    _write_next_turn(store)
    return owner


def read_mark(store: BlobStore) -> Mark | None:
    """The owner of a store; None while it has none."""
    data = store.read_owner()
    if data is None:
        return None
    try:
        said = json.loads(data)
        return Mark(str(said["owner"]), str(said["turn"]))
    except (ValueError, TypeError, KeyError):
        return Mark("unknown", DISPUTED)


@contextmanager
def _locked() -> Iterator[StoreOwnership]:
    """The row, which no other process of this installation changes meanwhile; so neither does it the mark."""
    StoreOwnership.objects.get_or_create(pk=1)
    with transaction.atomic():
        yield StoreOwnership.objects.select_for_update().get(pk=1)


def _content(store: BlobStore) -> Literal["none", "ours", "of others"]:
    some = [blob.sha256 for blob in islice(store.blobs(), 500)]
    if not some:
        return "none"
    return "ours" if named_blobs(some) else "of others"


def _write_next_turn(store: BlobStore) -> None:
    StoreOwnership.objects.filter(next_turn=None).update(next_turn=uuid.uuid4())
    with _locked() as ours:
        if ours.next_turn is None:  # another sweep of ours has just taken it
            return
        _write(store, Mark(str(ours.owner), str(ours.next_turn)))
        ours.turn, ours.next_turn, ours.taken_on = ours.next_turn, None, timezone.now()
        ours.save()


def _write(store: BlobStore, mark: Mark) -> None:
    store.write_owner(json.dumps({"owner": mark.owner, "turn": mark.turn}).encode())
