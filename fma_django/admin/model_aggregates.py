"""Aggregates: the results of rounds, from which base, made of how many updates."""

from typing import Any

from django.contrib import messages
from django.contrib.admin import display, register
from django.contrib.admin.utils import unquote
from django.db.models import F, OuterRef, QuerySet, Subquery
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.defaultfilters import filesizeformat
from django.urls import reverse

from fma_core.errors import FMAError
from fma_django.admin.confirmation import ask, is_confirmed
from fma_django.admin.labels import label
from fma_django.admin.links import NOTHING, link, link_to, list_url, state_link, weights_link
from fma_django.admin.object_filter import object_filter
from fma_django.admin.operated import OperatedAdmin
from fma_django.admin.themed import action
from fma_django.experiments.lifecycle import rewind
from fma_django.models import (
    ClientAggregateScore,
    FederatedModel,
    ModelAggregate,
    ModelArtifact,
    ModelUpdate,
    Round,
)
from fma_django.record.queries.row_count import row_count

REWIND = {
    "button": "Rewind",
    "consequence": "A copy of it becomes the newest aggregate. What came after it stays readable, but is abandoned; "
    "the open round begins again, and what clients have sent in it will not be used.",
}


@register(ModelAggregate)
class ModelAggregateAdmin(OperatedAdmin[ModelAggregate]):
    list_display = (
        "name",
        "standing",
        "of_model",
        "of_round",
        "follows",
        "updates",
        "scores",
        "validation_score",
        "versions",
        "size",
        "weights",
        "created_on",
    )
    list_filter = (
        object_filter(FederatedModel, "federated_model"),
        object_filter(ModelAggregate, "parent", title="parent", newest=0),
        "is_abandoned",
        "created_on",
    )
    search_fields = ("^id", "federated_model__name", "^sha256")
    search_help_text = "Aggregate id, model, or SHA-256"
    date_hierarchy = "created_on"
    fieldsets = (
        (None, {"fields": ("standing", "of_model", "of_round", "follows", "followed_by", "created_on")}),
        ("Weights", {"fields": ("updates", "size", "sha256", "weights", "versions")}),
        ("State", {"fields": ("state_size", "state_digest", "state")}),
        ("Validation", {"fields": ("validation_score", "scores")}),
    )
    readonly_fields = (
        "standing",
        "of_model",
        "of_round",
        "follows",
        "followed_by",
        "updates",
        "size",
        "weights",
        "versions",
        "scores",
        "state_size",
        "state_digest",
        "state",
    )

    actions_detail = ("rewind_this",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ModelAggregate]:
        rounds = Round.objects.filter(aggregate=OuterRef("pk"))
        artifacts = ModelArtifact.objects.filter(aggregate=OuterRef("pk"))
        scores = ClientAggregateScore.objects.filter(aggregate=OuterRef("pk"))
        return (
            super()
            .get_queryset(request)
            .select_related("federated_model", "parent", "round")
            .defer("federated_model__spec")
            .annotate(
                num_merged=Subquery(rounds.values("num_updates")[:1]),
                latest_version=Subquery(artifacts.order_by("-pk").values("version")[:1]),
                latest_artifact_id=Subquery(artifacts.order_by("-pk").values("pk")[:1]),
                num_scores=row_count(scores, "aggregate"),
            )
        )

    @display(description="aggregate", ordering="id")
    def name(self, row: ModelAggregate) -> str:
        return str(row)

    @display(description="standing", ordering="is_abandoned")
    def standing(self, row: ModelAggregate) -> str:
        return label("abandoned", "warning") if row.is_abandoned else label("kept", "success")

    @display(description="model", ordering="federated_model__name")
    def of_model(self, row: ModelAggregate) -> str:
        return link_to(row.federated_model)

    @display(description="round", ordering="round__number")
    def of_round(self, row: ModelAggregate) -> str:
        return link_to(getattr(row, "round", None))

    @display(description="parent", ordering="parent")
    def follows(self, row: ModelAggregate) -> str:
        return link_to(row.parent)

    @display(description="children")
    def followed_by(self, row: ModelAggregate) -> str:
        return link(list_url(ModelAggregate, parent=row.pk), "aggregates that follow it")

    @display(description="updates", ordering=F("num_merged"))
    def updates(self, row: Any) -> str:
        return link(list_url(ModelUpdate, applied_aggregate=row.pk), f"{row.num_merged or 0:,}")

    @display(description="scores", ordering=F("num_scores"))
    def scores(self, row: Any) -> str:
        return link(list_url(ClientAggregateScore, aggregate=row.pk), f"{row.num_scores:,}")

    @display(description="published as")
    def versions(self, row: Any) -> str:
        if row.latest_artifact_id is None:
            return NOTHING
        return link(list_url(ModelArtifact, aggregate=row.pk), row.latest_version)

    @display(description="size", ordering="size_bytes")
    def size(self, row: ModelAggregate) -> str:
        return filesizeformat(row.size_bytes)

    @display(description="weights")
    def weights(self, row: ModelAggregate) -> str:
        return weights_link(row)

    @display(description="size")
    def state_size(self, row: ModelAggregate) -> str:
        return NOTHING if row.state_size_bytes is None else filesizeformat(row.state_size_bytes)

    @display(description="sha256")
    def state_digest(self, row: ModelAggregate) -> str:
        return row.state_sha256 or NOTHING

    @display(description="kept for the next round")
    def state(self, row: ModelAggregate) -> str:
        return state_link(row) if row.state_sha256 else NOTHING

    @action(description="Rewind the model to this", permissions=["operate"])
    def rewind_this(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404
        page = reverse("admin:fma_django_modelaggregate_change", args=[row.pk])
        if not is_confirmed(request):
            question = f"Let {row.federated_model} go on from this aggregate?"
            return ask(self, request, [row], question=question, cancel_url=page, **REWIND)
        try:
            restored = rewind(row.federated_model, row)
        except FMAError as error:
            self.message_user(request, error.message, messages.ERROR)
            return HttpResponseRedirect(page)
        self.log_change(request, row, "The model was rewound to it.")
        self.message_user(
            request, f"{row.federated_model} goes on from {row}, as {restored}.", messages.SUCCESS
        )
        return HttpResponseRedirect(reverse("admin:fma_django_modelaggregate_change", args=[restored.pk]))
