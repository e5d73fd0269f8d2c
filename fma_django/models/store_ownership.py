"""The ownership of the store of the weights, as this database knows it."""

import uuid

from django.db import models


class StoreOwnership(models.Model):
    """The one row by which this database is known in its store.

    turn: another value at each sweep, also kept in the store; a copy of this database falls behind. next_turn: what it
    becomes, written before the store is, so that a crash between the two is no difference. taken_on: the time of the
    last change of the turn.
    """

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    owner = models.UUIDField(default=uuid.uuid4)
    turn = models.UUIDField(null=True)
    next_turn = models.UUIDField(null=True)
    taken_on = models.DateTimeField(null=True)

    class Meta:
        verbose_name = "ownership of the store"
        constraints = [models.CheckConstraint(name="store_ownership_one_row", condition=models.Q(id=1))]

    def __str__(self) -> str:
        return str(self.owner)
