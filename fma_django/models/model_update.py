"""The update that one client sent in one round."""

from django.db import models
from django.db.models import Q
from django.utils.functional import cached_property

from fma_core.aggregation.aggregators.aggregator import MAX_NUM_EXAMPLES
from fma_django.models.client import Client
from fma_django.models.federated_model import FederatedModel
from fma_django.models.model_aggregate import ModelAggregate
from fma_django.models.round import Round
from fma_django.models.stored_json import StoredJson
from fma_django.models.weights import WithWeights


class UpdateStatus(models.IntegerChoices):
    """FMA's numbers.

    INVALID: it does not count, and `status_reason` says why (replaced by a later one, trained from too old a base).
    FAILED: the round that it was part of failed.
    """

    PENDING = 0
    RUNNING = 1
    COMPLETE = 2
    FAILED = 3
    INVALID = 4


class UpdateVerdict(models.TextChoices):
    """The use that a round made of an update, in the words of `fma_core.engine.UpdateUse`."""

    USED = "used"
    CLIPPED = "clipped"
    REJECTED = "rejected"


ACCEPTED = (UpdateStatus.PENDING, UpdateStatus.RUNNING, UpdateStatus.COMPLETE)


class ModelUpdate(WithWeights):
    federated_model = models.ForeignKey(
        FederatedModel, on_delete=models.CASCADE, related_name="model_updates"
    )
    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="model_updates")
    round = models.ForeignKey(Round, on_delete=models.CASCADE, related_name="model_updates")
    base_aggregate = models.ForeignKey(
        ModelAggregate,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="updates_trained_from_it",
    )
    applied_aggregate = models.ForeignKey(
        ModelAggregate,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="updates_merged_into_it",
    )
    status = models.PositiveSmallIntegerField(choices=UpdateStatus.choices, default=UpdateStatus.PENDING)
    status_reason = models.TextField(blank=True)
    num_examples = models.PositiveBigIntegerField(
        default=1, help_text="Its weight: how many examples it learnt from."
    )
    metrics = StoredJson(default=dict, blank=True)
    # Null until the round is published, and in rounds of before there were any: a migration that filled them would
    # write every row anew.
    verdict = models.CharField(max_length=8, choices=UpdateVerdict.choices, null=True, blank=True)  # noqa: DJ001
    verdict_by = models.TextField(  # noqa: DJ001
        null=True,
        blank=True,
        help_text="The rule or stage that clipped or rejected it, or the code of the error that it would cause.",
    )
    weight_used = models.FloatField(
        null=True,
        blank=True,
        help_text="Its share of the result: 0 to 1. Empty where each coordinate has its own.",
    )
    step_norm = models.FloatField(
        null=True, blank=True, help_text="The L2 norm of its change, where the rule or a stage asks for it."
    )
    distance = models.FloatField(
        null=True,
        blank=True,
        help_text="The L2 distance of its change from that of the rule, where the rule measures distances.",
    )
    created_on = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)
        verbose_name = "model update"
        constraints = [
            models.UniqueConstraint(
                fields=("round", "client"),
                condition=Q(status__in=ACCEPTED),
                name="update_one_accepted_per_client_and_round",
            ),
            models.CheckConstraint(
                name="update_num_examples_positive",
                condition=Q(num_examples__gte=1, num_examples__lte=MAX_NUM_EXAMPLES),
            ),
            models.CheckConstraint(
                name="update_known_status", condition=Q(status__in=list(UpdateStatus.values))
            ),
            models.CheckConstraint(
                name="update_applied_only_when_complete",
                condition=Q(applied_aggregate__isnull=True) | Q(status=UpdateStatus.COMPLETE),
            ),
        ]

    def __str__(self) -> str:
        return f"update {self.pk}"

    @cached_property
    def round_number(self) -> int:
        return self.round.number

    @property
    def counted(self) -> bool:
        return self.status in ACCEPTED
