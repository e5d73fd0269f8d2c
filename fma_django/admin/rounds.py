"""Rounds: what became of each, how long it took, and why it failed."""

from django.contrib import messages
from django.contrib.admin import display, register
from django.contrib.admin.utils import unquote
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone

from fma_core.errors import FMAError
from fma_django.admin.confirmation import ask, is_confirmed
from fma_django.admin.durations import between, duration
from fma_django.admin.labels import Kind, label
from fma_django.admin.links import link, link_to, list_url
from fma_django.admin.model_updates import short_table_of_updates
from fma_django.admin.object_filter import object_filter
from fma_django.admin.operated import OperatedWhileOpenAdmin
from fma_django.admin.participations import short_table_of_selection
from fma_django.admin.pretty_json import pretty_json
from fma_django.admin.short_tables import MAX_ROWS, short_table
from fma_django.admin.themed import action
from fma_django.models import ConfigVersion, FederatedModel, ModelUpdate, Round
from fma_django.models.round import RoundState
from fma_django.rounds import publishing

KINDS: dict[str, Kind] = {
    RoundState.COLLECTING: "info",
    RoundState.AGGREGATING: "warning",
    RoundState.PUBLISHED: "success",
    RoundState.CANCELLED: "neutral",
    RoundState.FAILED: "danger",
}
CANCEL = {
    "button": "Cancel the round",
    "consequence": "What clients have sent in it will not be used. The next round opens at once.",
}


def state_label(row: Round) -> str:
    return label(row.get_state_display(), KINDS[row.state])


@register(Round)
class RoundAdmin(OperatedWhileOpenAdmin[Round]):
    list_display = (
        "name",
        "of_model",
        "state_shown",
        "updates",
        "num_asked",
        "attempts",
        "opened_on",
        "deadline_at",
        "lasted",
        "aggregating_took",
        "result",
        "failure",
    )
    list_select_related = ("federated_model", "aggregate")
    list_filter = (
        "state",
        object_filter(FederatedModel, "federated_model"),
        object_filter(ConfigVersion, "config_version", newest=0),
        "opened_on",
        "closed_on",
    )
    search_fields = ("federated_model__name", "^number", "failure_code", "failure_detail")
    search_help_text = "Model, round number, or words of a failure"
    date_hierarchy = "opened_on"
    actions = ("cancel_selected",)
    actions_detail = ("cancel_this",)
    fieldsets = (
        (None, {"fields": ("of_model", "number", "state_shown", "failure_code", "failure_detail")}),
        (
            "Clients",
            {"fields": ("ran_with", "waits_for", "num_asked", "num_reopenings", "selection")},
        ),
        ("Weights", {"fields": ("started_from", "result", "num_updates", "latest_updates", "measured")}),
        ("Rules when it was claimed", {"fields": ("strategy_shown", "num_clients", "start_sha256")}),
        (
            "Timing",
            {
                "fields": (
                    "opened_on",
                    "started_on",
                    "deadline_at",
                    "ready_on",
                    "claimed_on",
                    "closed_on",
                    "collecting_took",
                    "waiting_took",
                    "aggregating_took",
                    "attempts",
                    "lease_expires_at",
                )
            },
        ),
    )
    readonly_fields = (
        "of_model",
        "state_shown",
        "ran_with",
        "selection",
        "measured",
        "started_from",
        "result",
        "latest_updates",
        "strategy_shown",
        "collecting_took",
        "waiting_took",
        "aggregating_took",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Round]:
        rows = super().get_queryset(request).select_related("federated_model", "parent", "aggregate")
        return rows.select_related("config_version").defer(
            "federated_model__spec", "strategy", "config_version__configuration"
        )

    @display(description="round", ordering="number")
    def name(self, row: Round) -> str:
        return str(row)

    @display(description="model", ordering="federated_model__name")
    def of_model(self, row: Round) -> str:
        return link_to(row.federated_model)

    @display(description="state", ordering="state")
    def state_shown(self, row: Round) -> str:
        if row.aggregate is not None and row.aggregate.is_abandoned:
            return label("Published, abandoned", "warning")
        return state_label(row)

    @display(description="updates", ordering="num_updates")
    def updates(self, row: Round) -> str:
        return link(list_url(ModelUpdate, round=row.pk), f"{row.num_updates:,}")

    @display(description="lasted")
    def lasted(self, row: Round) -> str:
        if row.closed_on is None:
            return f"{duration(timezone.now() - row.opened_on)} so far"
        return between(row.opened_on, row.closed_on)

    @display(description="collecting took")
    def collecting_took(self, row: Round) -> str:
        return between(row.opened_on, row.ready_on)

    @display(description="waiting for a worker took")
    def waiting_took(self, row: Round) -> str:
        return between(row.ready_on, row.claimed_on)

    @display(description="aggregating took")
    def aggregating_took(self, row: Round) -> str:
        return between(row.claimed_on, row.closed_on)

    @display(description="started from")
    def started_from(self, row: Round) -> str:
        return link_to(row.parent)

    @display(description="result", ordering="aggregate")
    def result(self, row: Round) -> str:
        return link_to(row.aggregate)

    @display(description="failure", ordering="failure_code")
    def failure(self, row: Round) -> str:
        if not row.failure_code:
            return "–"
        detail = row.failure_detail
        return f"{row.failure_code}: {detail if len(detail) <= 80 else detail[:79] + '…'}"

    @display(description="latest updates")
    def latest_updates(self, row: Round) -> str:
        return short_table_of_updates(row.model_updates.all(), all_url=list_url(ModelUpdate, round=row.pk))

    @display(description="configuration")
    def ran_with(self, row: Round) -> str:
        return link_to(row.config_version)

    @display(description="selection")
    def selection(self, row: Round) -> str:
        return short_table_of_selection(row)

    @display(description="metrics")
    def measured(self, row: Round) -> str:
        return pretty_json(row.metrics or None)

    @display(description="strategy")
    def strategy_shown(self, row: Round) -> str:
        return pretty_json(row.strategy)

    @action(description="Cancel selected open rounds", permissions=["operate"])
    def cancel_selected(self, request: HttpRequest, queryset: QuerySet[Round]) -> HttpResponse | None:
        if not is_confirmed(request):
            shown = [f"{row} of {row.federated_model}" for row in queryset[:21]]
            return ask(self, request, shown, question="Cancel these rounds?", **CANCEL)
        for row in queryset:
            self._cancel(request, row)
        return None

    @action(description="Cancel this round", permissions=["operate"])
    def cancel_this(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404
        page = reverse("admin:fma_django_round_change", args=[row.pk])
        if not is_confirmed(request):
            shown = [f"{row} of {row.federated_model}"]
            return ask(self, request, shown, question="Cancel this round?", cancel_url=page, **CANCEL)
        self._cancel(request, row)
        return HttpResponseRedirect(page)

    def _cancel(self, request: HttpRequest, row: Round) -> None:
        try:
            publishing.cancel(row)
        except FMAError as error:
            self.message_user(request, error.message, messages.ERROR)
            return
        self.log_change(request, row, "Cancelled.")
        self.message_user(request, f"{row} of {row.federated_model} is cancelled.", messages.SUCCESS)


def short_table_of_rounds(federated_model: FederatedModel) -> str:
    rounds = federated_model.rounds.select_related("aggregate").order_by("-number")
    return short_table(
        "Latest rounds",
        ("Round", "State", "Updates", "Opened", "Result", "Failure"),
        [
            (
                link_to(row),
                state_label(row),
                row.num_updates,
                row.opened_on,
                link_to(row.aggregate),
                f"{row.failure_code}: {row.failure_detail}" if row.failure_code else "–",
            )
            for row in rounds[:MAX_ROWS]
        ],
        all_url=list_url(Round, federated_model=federated_model.pk),
        total=rounds.count(),
    )
