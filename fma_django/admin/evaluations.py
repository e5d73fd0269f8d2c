"""Evaluations: what was asked of whom, and what all contributors say together; nobody's own numbers."""

from typing import Any

from django.contrib import messages
from django.contrib.admin import display, register
from django.contrib.admin.utils import unquote
from django.db.models import F, OuterRef, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.defaultfilters import filesizeformat
from django.urls import reverse

from fma_core.errors import FMAError
from fma_django.admin.confirmation import ask, is_confirmed
from fma_django.admin.labels import Kind, label
from fma_django.admin.links import NOTHING, link, link_to, list_url, weights_link
from fma_django.admin.object_filter import object_filter
from fma_django.admin.operated import OperatedWhileOpenAdmin
from fma_django.admin.pretty_json import pretty_json
from fma_django.admin.themed import action
from fma_django.evaluations.ends import close_evaluation
from fma_django.models import Client, EvaluationResult, EvaluationRound, FederatedModel
from fma_django.models.evaluation_round import EvaluationState
from fma_django.record.queries.row_count import row_count

KINDS: dict[str, Kind] = {
    EvaluationState.OPEN: "info",
    EvaluationState.CLOSED: "success",
    EvaluationState.CANCELLED: "neutral",
}
CLOSE = {
    "button": "Close the evaluation",
    "consequence": "No more results are taken. The metrics of those who answered are shown if they are enough.",
}


@register(EvaluationRound)
class EvaluationAdmin(OperatedWhileOpenAdmin[EvaluationRound]):
    list_display = (
        "title",
        "of_model",
        "state_shown",
        "subject",
        "asked_clients",
        "answers",
        "num_contributors",
        "withheld",
        "deadline_at",
        "opened_on",
    )
    list_filter = ("state", "withheld", object_filter(FederatedModel, "federated_model"), "opened_on")
    search_fields = ("name", "^id", "federated_model__name", "^sha256")
    search_help_text = "Name, id, model, or SHA-256 of the weights"
    date_hierarchy = "opened_on"
    actions_detail = ("close_this",)
    fieldsets = (
        (None, {"fields": ("title", "of_model", "state_shown", "reason", "question_shown")}),
        ("Weights", {"fields": ("subject", "of_aggregate", "of_artifact", "size", "sha256", "weights")}),
        (
            "Who",
            {
                "fields": (
                    "asked_clients",
                    "answers",
                    "num_contributors",
                    "min_contributors",
                    "quorum_per_organisation",
                )
            },
        ),
        ("All contributors together", {"fields": ("why_withheld", "metrics_shown")}),
        ("Timing", {"fields": ("opened_on", "deadline_at", "closed_on")}),
    )
    readonly_fields = (
        "title",
        "of_model",
        "state_shown",
        "question_shown",
        "of_aggregate",
        "of_artifact",
        "size",
        "weights",
        "asked_clients",
        "answers",
        "why_withheld",
        "metrics_shown",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[EvaluationRound]:
        asked = EvaluationRound.clients.through._default_manager.filter(evaluationround=OuterRef("pk"))
        answered = EvaluationResult.objects.filter(evaluation=OuterRef("pk"))
        return (
            super()
            .get_queryset(request)
            .select_related("federated_model", "aggregate", "artifact")
            .defer("federated_model__spec")
            .annotate(
                num_asked=row_count(asked, "evaluationround"), num_answered=row_count(answered, "evaluation")
            )
        )

    @display(description="evaluation", ordering="id")
    def title(self, row: EvaluationRound) -> str:
        return str(row)

    @display(description="model", ordering="federated_model__name")
    def of_model(self, row: EvaluationRound) -> str:
        return link_to(row.federated_model)

    @display(description="state", ordering="state")
    def state_shown(self, row: EvaluationRound) -> str:
        return label(row.get_state_display(), KINDS[row.state])

    @display(description="question")
    def question_shown(self, row: EvaluationRound) -> str:
        return pretty_json(row.question)

    @display(description="aggregate")
    def of_aggregate(self, row: EvaluationRound) -> str:
        return link_to(row.aggregate)

    @display(description="artifact")
    def of_artifact(self, row: EvaluationRound) -> str:
        return link_to(row.artifact)

    @display(description="size")
    def size(self, row: EvaluationRound) -> str:
        return filesizeformat(row.size_bytes)

    @display(description="weights")
    def weights(self, row: EvaluationRound) -> str:
        return weights_link(row)

    @display(description="asked", ordering=F("num_asked"))
    def asked_clients(self, row: Any) -> str:
        return link(list_url(Client, evaluations=row.pk), f"{row.num_asked:,}")

    @display(description="answered", ordering=F("num_answered"))
    def answers(self, row: Any) -> str:
        return f"{row.num_answered:,}"

    @display(description="withheld")
    def why_withheld(self, row: EvaluationRound) -> str:
        why = row.why_withheld
        return NOTHING if why is None else f"{why[0]}: {why[1]}"

    @display(description="metrics")
    def metrics_shown(self, row: EvaluationRound) -> str:
        return pretty_json(row.metrics)

    @action(description="Close this evaluation", permissions=["operate"])
    def close_this(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404
        page = reverse("admin:fma_django_evaluationround_change", args=[row.pk])
        if not is_confirmed(request):
            shown = [f"{row} of {row.federated_model}"]
            return ask(self, request, shown, question="Close this evaluation?", cancel_url=page, **CLOSE)
        try:
            close_evaluation(row)
        except FMAError as error:
            self.message_user(request, error.message, messages.ERROR)
        else:
            self.log_change(request, row, "Closed.")
            self.message_user(request, f"{row} of {row.federated_model} is closed.", messages.SUCCESS)
        return HttpResponseRedirect(page)
