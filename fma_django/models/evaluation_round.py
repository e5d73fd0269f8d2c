"""One evaluation across organisations: who is asked what of which weights, and what all of them say together."""

from collections.abc import Mapping

from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q

from fma_core.evaluation import Question
from fma_django.models.client import Client
from fma_django.models.federated_model import FederatedModel
from fma_django.models.model_aggregate import ModelAggregate
from fma_django.models.model_artifact import ModelArtifact
from fma_django.models.stored_json import StoredJson
from fma_django.models.weights import WithWeights


class EvaluationState(models.TextChoices):
    OPEN = "open"
    CLOSED = "closed"
    CANCELLED = "cancelled"


class EvaluationSubject(models.TextChoices):
    AGGREGATE = "aggregate"
    ARTIFACT = "artifact"
    UPLOAD = "upload", "uploaded weights"


class EvaluationReason(models.TextChoices):
    """The reason why it ended."""

    ALL_ANSWERED = "all_answered", "everyone answered"
    DEADLINE = "deadline"
    BY_OWNER = "by_owner"


class Withheld(models.TextChoices):
    """The reason why its metrics are not shown."""

    STILL_OPEN = "still_open"
    CANCELLED = "cancelled"
    TOO_FEW_CONTRIBUTORS = "too_few_contributors"
    ISOLATES_CONTRIBUTORS = "isolates_contributors"


# While it is open: each answer would show in the difference to what was read before it.
ALWAYS_WITHHELD: Mapping[str, tuple[Withheld, str]] = {
    EvaluationState.OPEN: (Withheld.STILL_OPEN, "metrics are shown when the evaluation has closed"),
    EvaluationState.CANCELLED: (Withheld.CANCELLED, "the evaluation was cancelled"),
}


class EvaluationRound(WithWeights):
    """The weights are its own columns: they are kept when the aggregate or the artifact goes.

    clients: who is asked, chosen once, when it opens. quorum_per_organisation: how many clients of an organisation must
    answer; with fewer the organisation contributes nothing.
    metrics: of what contributors sent, merged when it closed. withheld: why there are none.
    """

    federated_model = models.ForeignKey(FederatedModel, on_delete=models.CASCADE, related_name="evaluations")
    name = models.CharField(max_length=255, blank=True)
    subject = models.CharField(max_length=9, choices=EvaluationSubject.choices)
    aggregate = models.ForeignKey(
        ModelAggregate, on_delete=models.SET_NULL, null=True, blank=True, related_name="evaluations"
    )
    artifact = models.ForeignKey(
        ModelArtifact, on_delete=models.SET_NULL, null=True, blank=True, related_name="evaluations"
    )
    question = StoredJson()
    clients = models.ManyToManyField(Client, related_name="evaluations")
    min_contributors = models.PositiveIntegerField(
        validators=[MinValueValidator(2)],
        help_text="Organisations, or clients without one, that must answer before anything is shown.",
    )
    quorum_per_organisation = models.PositiveIntegerField(null=True, blank=True)
    deadline_at = models.DateTimeField()
    state = models.CharField(max_length=9, choices=EvaluationState.choices, default=EvaluationState.OPEN)
    reason = models.CharField(max_length=12, choices=EvaluationReason.choices, blank=True)
    num_contributors = models.PositiveIntegerField(null=True, blank=True)
    metrics = StoredJson(null=True, blank=True)
    withheld = models.CharField(max_length=24, choices=Withheld.choices, blank=True)
    withheld_detail = models.TextField(blank=True)
    opened_on = models.DateTimeField(auto_now_add=True)
    closed_on = models.DateTimeField(null=True, blank=True, help_text="The time at which it ended.")

    class Meta:
        ordering = ("-id",)
        verbose_name = "evaluation"
        constraints = [
            models.CheckConstraint(
                name="evaluation_known_state",
                condition=Q(state__in=[state.value for state in EvaluationState]),
            ),
            models.CheckConstraint(
                name="evaluation_min_contributors_hides_each", condition=Q(min_contributors__gte=2)
            ),
            models.CheckConstraint(
                name="evaluation_ended_exactly_with_reason",
                condition=Q(state=EvaluationState.OPEN, closed_on__isnull=True, reason="")
                | (~Q(state=EvaluationState.OPEN) & Q(closed_on__isnull=False) & ~Q(reason="")),
            ),
            models.CheckConstraint(
                name="evaluation_shown_only_when_closed",
                condition=Q(metrics__isnull=True) | Q(state=EvaluationState.CLOSED, withheld=""),
            ),
            models.CheckConstraint(
                name="evaluation_closed_shown_or_withheld",
                condition=~Q(state=EvaluationState.CLOSED, withheld="") | Q(metrics__isnull=False),
            ),
        ]
        indexes = [models.Index(fields=("state", "deadline_at"), name="evaluation_by_state_and_end")]

    def __str__(self) -> str:
        return self.name or f"evaluation {self.pk}"

    @property
    def asked(self) -> Question:
        return Question.from_json(self.question)

    @property
    def is_open(self) -> bool:
        return self.state == EvaluationState.OPEN

    @property
    def why_withheld(self) -> tuple[str, str] | None:
        """A code and a sentence; None when the metrics are there."""
        if self.state in ALWAYS_WITHHELD:
            return ALWAYS_WITHHELD[self.state]
        return (self.withheld, self.withheld_detail) if self.withheld else None
