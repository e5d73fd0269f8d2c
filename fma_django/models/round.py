"""A round: the interval between two aggregates of a model. `fma_core.rounds.life` has its states and what comes next.

Claiming a round freezes its updates and opens the next round in the same transaction, so that clients are never
turned away while the arithmetic runs. A retry therefore stays in `aggregating` under a new lease: going back to
`collecting` would put two collecting rounds side by side.
"""

from django.db import models
from django.db.models import Q

from fma_core.aggregation.strategy import Strategy
from fma_core.rounds.life import TRANSITIONS
from fma_django.models.federated_model import FederatedModel
from fma_django.models.model_aggregate import ModelAggregate
from fma_django.models.stored_json import StoredJson


class RoundState(models.TextChoices):
    COLLECTING = "collecting"
    AGGREGATING = "aggregating"
    PUBLISHED = "published"
    CANCELLED = "cancelled"
    FAILED = "failed"


ENDED = tuple(state for state in RoundState if not TRANSITIONS[state])


class Round(models.Model):
    """One round of a model.

    num_updates counts the accepted updates; an accepted update is the only one of its client, so it counts clients.
    clients_counted: the number of clients that the round waited for when they were last counted. If its rules ask for
    them, they are counted when the round starts, when one of them leaves and when as many have answered, so that an
    update need not count them.
    strategy, num_clients, start_sha256, engine_version: all that its result depends on beside its updates and the state
    of its parent, written down by the claim, so that the aggregate can be computed again.
    started_on, deadline_at: it waits for enough clients before it starts, and its time counts from there (UTC).
    lease_token, lease_expires_at: who may publish, and until when (UTC, the server's clock).
    """

    federated_model = models.ForeignKey(FederatedModel, on_delete=models.CASCADE, related_name="rounds")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=11, choices=RoundState.choices, default=RoundState.COLLECTING)
    parent = models.ForeignKey(
        ModelAggregate, on_delete=models.CASCADE, null=True, blank=True, related_name="following_rounds"
    )
    aggregate = models.OneToOneField(
        ModelAggregate, on_delete=models.RESTRICT, null=True, blank=True, related_name="round"
    )
    config_version = models.ForeignKey(
        "ConfigVersion", on_delete=models.RESTRICT, null=True, blank=True, related_name="rounds"
    )
    started_on = models.DateTimeField(
        null=True,
        blank=True,
        help_text="The time at which its clients were chosen; its configuration stays from then on.",
    )
    deadline_at = models.DateTimeField(
        null=True, blank=True, help_text="The time at which it ends, complete or not."
    )
    num_reopenings = models.PositiveIntegerField(
        default=0, help_text="The number of deadlines that passed without a quorum."
    )
    waits_for = models.TextField(
        blank=True, help_text="The reason why it has not started yet, or cannot close."
    )
    num_draws = models.PositiveIntegerField(
        default=0,
        editable=False,
        help_text="The number of draws of clients; each draw has its own randomness.",
    )
    num_asked = models.PositiveIntegerField(
        null=True, blank=True, help_text="The number of clients chosen; null where every client may answer."
    )
    num_updates = models.PositiveIntegerField(default=0)
    clients_counted = models.PositiveIntegerField(null=True, blank=True, editable=False)
    metrics = StoredJson(
        default=dict,
        blank=True,
        editable=False,
        help_text="The metrics of its updates, merged when it was published.",
    )
    strategy = StoredJson(
        null=True,
        blank=True,
        editable=False,
        help_text="The strategy that aggregates it, as it was at the claim.",
    )
    num_clients = models.PositiveIntegerField(
        null=True,
        blank=True,
        editable=False,
        help_text="The number of clients that the model had at the claim.",
    )
    engine_version = models.PositiveSmallIntegerField(
        default=1, db_default=1, editable=False, help_text="The version of the arithmetic that aggregates it."
    )
    start_sha256 = models.CharField(
        max_length=64,
        blank=True,
        editable=False,
        help_text="The SHA-256 of the weights that it started from, if there were any.",
    )
    attempts = models.PositiveIntegerField(default=0)
    lease_token = models.UUIDField(null=True, blank=True)
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    lease_holder = models.CharField(
        max_length=255,
        default="",
        db_default="",
        blank=True,
        editable=False,
        help_text="The process that aggregates it.",
    )
    failure_code = models.CharField(max_length=64, blank=True)
    failure_detail = models.TextField(blank=True)
    opened_on = models.DateTimeField(auto_now_add=True)
    ready_on = models.DateTimeField(
        null=True, blank=True, help_text="The time at which its requirement was met."
    )
    asked_on = models.DateTimeField(
        null=True,
        blank=True,
        editable=False,
        help_text="The time at which its aggregation was enqueued, until a worker takes that task.",
    )
    claimed_on = models.DateTimeField(
        null=True, blank=True, help_text="The last time that a worker began to aggregate it."
    )
    closed_on = models.DateTimeField(null=True, blank=True, help_text="The time at which it ended.")

    class Meta:
        ordering = ("-id",)
        constraints = [
            models.UniqueConstraint(fields=("federated_model", "number"), name="round_number_once_per_model"),
            models.UniqueConstraint(
                fields=("federated_model",),
                condition=Q(state=RoundState.COLLECTING),
                name="round_one_collecting_per_model",
            ),
            models.UniqueConstraint(
                fields=("federated_model",),
                condition=Q(state=RoundState.AGGREGATING),
                name="round_one_aggregating_per_model",
            ),
            models.CheckConstraint(
                name="round_known_state", condition=Q(state__in=[state.value for state in RoundState])
            ),
            models.CheckConstraint(
                name="round_leased_exactly_while_aggregating",
                condition=Q(
                    state=RoundState.AGGREGATING, lease_token__isnull=False, lease_expires_at__isnull=False
                )
                | (
                    ~Q(state=RoundState.AGGREGATING)
                    & Q(lease_token__isnull=True, lease_expires_at__isnull=True)
                ),
            ),
            models.CheckConstraint(
                name="round_published_exactly_with_aggregate",
                condition=Q(state=RoundState.PUBLISHED, aggregate__isnull=False)
                | (~Q(state=RoundState.PUBLISHED) & Q(aggregate__isnull=True)),
            ),
            models.CheckConstraint(
                name="round_failed_exactly_with_reason",
                condition=(Q(state=RoundState.FAILED) & ~Q(failure_code=""))
                | (~Q(state=RoundState.FAILED) & Q(failure_code="")),
            ),
            models.CheckConstraint(
                name="round_closed_exactly_when_ended",
                condition=Q(state__in=ENDED, closed_on__isnull=False)
                | (~Q(state__in=ENDED) & Q(closed_on__isnull=True)),
            ),
        ]
        indexes = [
            models.Index(fields=("state", "lease_expires_at"), name="round_by_state_and_lease"),
            models.Index(fields=("state", "deadline_at"), name="round_by_state_and_deadline"),
        ]

    def __str__(self) -> str:
        return f"round {self.number}"

    def build_strategy(self) -> Strategy:
        """The strategy that it is, or will be, aggregated by. Raises InvalidPart or InvalidStrategy."""
        if self.strategy is None:
            return self.federated_model.build_strategy()
        return Strategy.from_json(self.strategy)

    @property
    def is_open(self) -> bool:
        return self.state == RoundState.COLLECTING
