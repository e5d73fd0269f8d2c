"""Updates: who sent what, from which base, and whether it counted."""

from django.contrib.admin import display, register
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat

from fma_django.admin.history import HistoryAdmin
from fma_django.admin.labels import Kind, label
from fma_django.admin.links import link_to, weights_link
from fma_django.admin.object_filter import object_filter
from fma_django.admin.pretty_json import pretty_json
from fma_django.admin.short_tables import MAX_ROWS, short_table
from fma_django.models import Client, FederatedModel, ModelAggregate, ModelUpdate, Round
from fma_django.models.model_update import UpdateStatus, UpdateVerdict
from fma_django.models.update_signature import signer_of

KINDS: dict[int, Kind] = {
    UpdateStatus.PENDING: "info",
    UpdateStatus.RUNNING: "warning",
    UpdateStatus.COMPLETE: "success",
    UpdateStatus.FAILED: "danger",
    UpdateStatus.INVALID: "neutral",
}


KINDS_OF_VERDICTS: dict[str, Kind] = {
    UpdateVerdict.USED: "success",
    UpdateVerdict.CLIPPED: "warning",
    UpdateVerdict.REJECTED: "danger",
}


def status_label(row: ModelUpdate) -> str:
    return label(row.get_status_display(), KINDS[row.status])


def verdict_label(row: ModelUpdate) -> str:
    if row.verdict is None:
        return "–"
    return label(
        f"{row.verdict} by {row.verdict_by}" if row.verdict_by else row.verdict,
        KINDS_OF_VERDICTS[row.verdict],
    )


@register(ModelUpdate)
class ModelUpdateAdmin(HistoryAdmin[ModelUpdate]):
    list_display = (
        "name",
        "of_model",
        "in_round",
        "sent_by",
        "status_shown",
        "verdict_shown",
        "weight_shown",
        "reason",
        "num_examples",
        "size",
        "trained_from",
        "applied_in",
        "signed",
        "created_on",
    )
    list_filter = (
        "status",
        "verdict",
        object_filter(FederatedModel, "federated_model"),
        object_filter(Round, "round", newest=0),
        object_filter(Client, "client", newest=0),
        object_filter(ModelAggregate, "base_aggregate", title="trained from", newest=0),
        object_filter(ModelAggregate, "applied_aggregate", title="applied in", newest=0),
        "created_on",
    )
    search_fields = ("^id", "federated_model__name", "client__id", "status_reason", "^sha256")
    search_help_text = "Update id, model, client id, SHA-256, or words of the reason"
    date_hierarchy = "created_on"
    fieldsets = (
        (
            None,
            {"fields": ("of_model", "in_round", "sent_by", "status_shown", "status_reason", "created_on")},
        ),
        ("Weights", {"fields": ("trained_from", "applied_in", "num_examples", "size", "sha256", "weights")}),
        ("Use", {"fields": ("verdict_shown", "weight_used", "step_norm", "distance")}),
        ("Metrics", {"fields": ("metrics_shown",)}),
        ("Signature", {"fields": ("signed_by",)}),
    )
    readonly_fields = (
        "of_model",
        "in_round",
        "sent_by",
        "status_shown",
        "verdict_shown",
        "trained_from",
        "applied_in",
        "size",
        "weights",
        "metrics_shown",
        "signed_by",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[ModelUpdate]:
        related = ("federated_model", "round", "client", "base_aggregate", "applied_aggregate", "signed")
        # The spec of the model, which may be large, would come along once for each row.
        return super().get_queryset(request).select_related(*related).defer("federated_model__spec")

    @display(description="update", ordering="id")
    def name(self, row: ModelUpdate) -> str:
        return str(row)

    @display(description="model", ordering="federated_model__name")
    def of_model(self, row: ModelUpdate) -> str:
        return link_to(row.federated_model)

    @display(description="round", ordering="round__number")
    def in_round(self, row: ModelUpdate) -> str:
        return link_to(row.round)

    @display(description="client")
    def sent_by(self, row: ModelUpdate) -> str:
        return link_to(row.client)

    @display(description="status", ordering="status")
    def status_shown(self, row: ModelUpdate) -> str:
        return status_label(row)

    @display(description="verdict", ordering="verdict")
    def verdict_shown(self, row: ModelUpdate) -> str:
        return verdict_label(row)

    @display(description="share", ordering="weight_used")
    def weight_shown(self, row: ModelUpdate) -> str:
        return "–" if row.weight_used is None else f"{row.weight_used:.1%}"

    @display(description="reason")
    def reason(self, row: ModelUpdate) -> str:
        text = row.status_reason
        return (text if len(text) <= 60 else text[:59] + "…") or "–"

    @display(description="size", ordering="size_bytes")
    def size(self, row: ModelUpdate) -> str:
        return filesizeformat(row.size_bytes)

    @display(description="trained from", ordering="base_aggregate")
    def trained_from(self, row: ModelUpdate) -> str:
        return link_to(row.base_aggregate)

    @display(description="applied in", ordering="applied_aggregate")
    def applied_in(self, row: ModelUpdate) -> str:
        return link_to(row.applied_aggregate)

    @display(description="weights")
    def weights(self, row: ModelUpdate) -> str:
        return weights_link(row)

    @display(description="signed", boolean=True)
    def signed(self, row: ModelUpdate) -> bool:
        return signer_of(row) is not None

    @display(description="signed by", empty_value="–")
    def signed_by(self, row: ModelUpdate) -> str | None:
        return signer_of(row)

    @display(description="metrics")
    def metrics_shown(self, row: ModelUpdate) -> str:
        return pretty_json(row.metrics)


def short_table_of_updates(updates: QuerySet[ModelUpdate], *, all_url: str) -> str:
    newest = updates.select_related("client").order_by("-pk")[:MAX_ROWS]
    return short_table(
        "Latest updates",
        ("Update", "Client", "Status", "Verdict", "Examples", "Reason"),
        [
            (
                link_to(row),
                link_to(row.client),
                status_label(row),
                verdict_label(row),
                f"{row.num_examples:,}",
                row.status_reason or "–",
            )
            for row in newest
        ],
        all_url=all_url,
        total=updates.count(),
    )
