"""The participation of a client in a round: whether it was chosen, when it joined and when it answered."""

from django.db import models
from django.db.models import Q

from fma_django.models.client import Client
from fma_django.models.round import Round


class Participation(models.Model):
    """One client in one round.

    Written for every registered client when the cohort is chosen; where everyone may answer, when a client joins.
    reason: why it was not chosen, a stable code; "" when it was. detail: the same for people.
    answered_on: when an update of it for this round arrived; was_late: after the round had closed.
    """

    round = models.ForeignKey(Round, on_delete=models.CASCADE, related_name="participations")
    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="participations")
    is_chosen = models.BooleanField()
    reason = models.CharField(max_length=64, blank=True)
    detail = models.TextField(blank=True)
    created_on = models.DateTimeField(auto_now_add=True)
    joined_on = models.DateTimeField(null=True, blank=True)
    answered_on = models.DateTimeField(null=True, blank=True)
    was_late = models.BooleanField(default=False)

    class Meta:
        ordering = ("-id",)
        constraints = [
            models.UniqueConstraint(
                fields=("round", "client"), name="participation_once_per_round_and_client"
            ),
            models.CheckConstraint(
                name="participation_chosen_exactly_without_reason",
                condition=Q(is_chosen=True, reason="") | (Q(is_chosen=False) & ~Q(reason="")),
            ),
            models.CheckConstraint(
                name="participation_late_only_when_answered",
                condition=Q(was_late=False) | Q(answered_on__isnull=False),
            ),
        ]
        indexes = [models.Index(fields=("client", "is_chosen"), name="participation_by_client")]

    def __str__(self) -> str:
        return f"participation {self.pk}"
