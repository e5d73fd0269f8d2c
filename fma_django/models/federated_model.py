"""One experiment: what is trained, by which rules, for whom."""

import secrets
from collections.abc import Mapping
from typing import Any, cast

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from fma_core.aggregation.aggregators import aggregators
from fma_core.aggregation.strategy import Strategy
from fma_core.arrays.codecs.json_layouts import Layout
from fma_core.arrays.spec import Spec
from fma_core.rounds.closing import RoundRules
from fma_core.rounds.columns import COLUMNS, MAX_SEED
from fma_core.rounds.policy import RoundPolicy
from fma_core.rounds.requirements import Requirement, requirements
from fma_core.selection import EVERYONE, chooses_clients
from fma_django.models.client import Client
from fma_django.models.stored_json import StoredJson

# Each round runs with one version of these columns.
CONFIGURATION = tuple(column.name for column in COLUMNS)


def _everyone() -> dict[str, Any]:
    return {"name": EVERYONE}


def _new_seed() -> int:
    return secrets.randbelow(MAX_SEED + 1)


class ModelState(models.TextChoices):
    """CREATED: not started yet; updates are accepted and wait, as while it is PAUSED."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    ENDED = "ended"


class WeightsLayout(models.TextChoices):
    """The JSON shape in which a model's weights came, and in which they are given back."""

    ARRAY = "array", "one rectangular array"
    LAYERS = "layers", "a list of layers"
    NAMED = "named", "an object of named arrays"


class UpdateKind(models.TextChoices):
    WEIGHTS = "weights", "weights"
    DELTA = "delta", "differences"


class FederatedModel(models.Model):
    name = models.CharField(max_length=255)
    developer = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="federated_models"
    )
    clients = models.ManyToManyField(Client, related_name="federated_models", blank=True)
    consents = models.ManyToManyField(
        Client,
        related_name="consented_to",
        blank=True,
        editable=False,
        help_text="The clients that registered themselves, or that their organisation's admin put here: the "
        "developer may send in their names.",
    )
    current_artifact = models.OneToOneField(
        "ModelArtifact", on_delete=models.SET_NULL, null=True, blank=True, editable=False, related_name="+"
    )
    allow_aggregation = models.BooleanField(
        default=False,
        help_text="Off: updates are accepted and wait. On: rounds close when the requirement is met.",
    )
    aggregator = models.CharField(max_length=255)
    aggregator_params = StoredJson(
        default=dict, blank=True, help_text="The aggregator's parameters by name; empty: their defaults."
    )
    stages = StoredJson(
        default=list,
        blank=True,
        help_text="The steps before the aggregator: a list of parts, each with its name.",
    )
    optimiser = StoredJson(
        null=True,
        blank=True,
        help_text="The server optimiser, with its name; empty: the aggregator's answer is final.",
    )
    update_kind = models.CharField(
        max_length=7,
        choices=UpdateKind.choices,
        default=UpdateKind.WEIGHTS,
        help_text="Whether clients send their weights after training, or only the differences.",
    )
    staleness = StoredJson(
        null=True,
        blank=True,
        help_text="The discount for updates of an old base, with its name; empty: none.",
    )
    array_policies = StoredJson(
        default=dict,
        blank=True,
        help_text="The next value of each array, by pattern of its name: stepped, averaged, newest, collected or kept.",
    )
    requirement = models.CharField(max_length=255, blank=True, help_text="Empty: one update is enough.")
    requirement_args = StoredJson(
        default=list, blank=True, help_text="The requirement's parameters in order."
    )
    round_policy = StoredJson(
        default=dict, blank=True, help_text="When a round closes and when the experiment ends."
    )
    selector = StoredJson(
        default=_everyone,
        blank=True,
        help_text="The rule that chooses the clients of a round, with its name.",
    )
    eligibility = StoredJson(
        default=list,
        blank=True,
        help_text="The clients that may be chosen at all: a list of filters, each with its name.",
    )
    seed = models.PositiveBigIntegerField(
        default=_new_seed,
        validators=[MaxValueValidator(MAX_SEED)],
        help_text="The same seed and history choose the same clients.",
    )
    client_config = StoredJson(
        default=dict,
        blank=True,
        help_text="The settings that clients train with in a round: any JSON object.",
    )
    client_config_overrides = StoredJson(
        default=list, blank=True, help_text="Differences for some rounds, tags or clients."
    )
    client_config_schema = StoredJson(
        null=True, blank=True, help_text="The JSON Schema that client_config must keep to; empty: any."
    )
    furthest_base_agg = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(2147483647)],
        help_text="Only updates trained from one of this many newest aggregates count; 1 means the newest.",
    )
    update_schema = StoredJson(null=True, blank=True)
    client_agg_results_schema = StoredJson(null=True, blank=True)
    spec = StoredJson(null=True, blank=True, help_text="Names, shapes and dtypes of the model's arrays.")
    weights_layout = models.CharField(max_length=8, choices=WeightsLayout.choices, blank=True)
    started_on = models.DateTimeField(null=True, blank=True, editable=False)
    paused_on = models.DateTimeField(null=True, blank=True, editable=False)
    ended_on = models.DateTimeField(null=True, blank=True, editable=False)
    end_reason = models.CharField(max_length=64, blank=True, editable=False)
    created_on = models.DateTimeField(auto_now_add=True)
    last_modified = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("-id",)
        verbose_name = "federated model"
        constraints = [
            models.CheckConstraint(
                name="federated_model_furthest_base_agg_at_least_one",
                condition=Q(furthest_base_agg__isnull=True) | Q(furthest_base_agg__gte=1),
            ),
            models.CheckConstraint(
                name="federated_model_ended_exactly_with_reason",
                condition=(Q(ended_on__isnull=False, allow_aggregation=False) & ~Q(end_reason=""))
                | Q(ended_on__isnull=True, end_reason=""),
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def state(self) -> ModelState:
        if self.ended_on is not None:
            return ModelState.ENDED
        if self.allow_aggregation:
            return ModelState.RUNNING
        return ModelState.CREATED if self.started_on is None else ModelState.PAUSED

    @property
    def configuration(self) -> dict[str, Any]:
        return {column: getattr(self, column) for column in CONFIGURATION}

    def configure(self, configuration: Mapping[str, Any]) -> None:
        """Take these columns of a configuration, without saving."""
        for column, value in configuration.items():
            setattr(self, column, value)

    @property
    def chooses_clients(self) -> bool:
        """Whether a round has a cohort; without, every registered client may answer."""
        return chooses_clients(self.selector.get("name"), self.eligibility)

    @property
    def layout(self) -> Layout | None:
        """The JSON layout of the model's weights; None before there are any."""
        return cast("Layout", self.weights_layout) if self.weights_layout else None

    @property
    def array_spec(self) -> Spec | None:
        return None if self.spec is None else Spec.from_json(self.spec)

    def build_strategy(self) -> Strategy:
        """Raises InvalidPart or InvalidStrategy, when a plugin is gone for instance."""
        return Strategy.build(
            aggregators.build(self.aggregator, self.aggregator_params),
            stages=self.stages,
            optimiser=self.optimiser,
            staleness=self.staleness,
            update_kind=self.update_kind,
            array_policies=self.array_policies,
        )

    def build_round_policy(self) -> RoundPolicy:
        """Raises InvalidParameter."""
        return RoundPolicy.from_json(self.round_policy)

    def build_round_rules(self, strategy: Strategy) -> RoundRules:
        """The rules by which a round closes that this strategy aggregates. Raises InvalidPart."""
        return RoundRules(
            policy=self.build_round_policy(),
            strategy=strategy,
            requirement=self.build_requirement() if self.requirement else None,
        )

    def build_requirement(self) -> Requirement:
        args: Any = self.requirement_args or []
        return requirements.build(self.requirement or "none", args)
