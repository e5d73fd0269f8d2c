"""Participations: the clients considered for a round, the chosen ones, and why the others were not chosen."""

from django.contrib.admin import display, register
from django.db.models import QuerySet
from django.http import HttpRequest

from fma_django.admin.history import HistoryAdmin
from fma_django.admin.labels import label
from fma_django.admin.links import NOTHING, link_to, list_url
from fma_django.admin.object_filter import object_filter
from fma_django.admin.short_tables import MAX_ROWS, short_table
from fma_django.models import Client, FederatedModel, Participation, Round
from fma_django.record.queries.cohorts import selection_of


def chosen_label(row: Participation) -> str:
    return label("chosen", "success") if row.is_chosen else label("not chosen", "neutral")


def answer_of(row: Participation) -> object:
    if row.answered_on is None:
        return NOTHING
    return f"late, {row.answered_on:%Y-%m-%d %H:%M}" if row.was_late else row.answered_on


@register(Participation)
class ParticipationAdmin(HistoryAdmin[Participation]):
    list_display = ("who", "of_round", "of_model", "chosen", "reason", "joined_on", "answered")
    list_filter = (
        "is_chosen",
        "was_late",
        object_filter(FederatedModel, "model", path="round__federated_model", title="federated model"),
        object_filter(Round, "round", newest=0),
        object_filter(Client, "client", newest=0),
        "created_on",
    )
    search_fields = ("client__name", "reason", "round__federated_model__name")
    search_help_text = "Client, reason, or model"
    date_hierarchy = "created_on"
    fieldsets = (
        (None, {"fields": ("who", "of_round", "of_model", "chosen", "reason", "detail")}),
        ("Course", {"fields": ("created_on", "joined_on", "answered")}),
    )
    readonly_fields = ("who", "of_round", "of_model", "chosen", "answered")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Participation]:
        rows = super().get_queryset(request).select_related("client", "round__federated_model")
        return rows.defer("client__credential_hash", "round__federated_model__spec")

    @display(description="client", ordering="client")
    def who(self, row: Participation) -> str:
        return link_to(row.client)

    @display(description="round", ordering="round")
    def of_round(self, row: Participation) -> str:
        return link_to(row.round)

    @display(description="model", ordering="round__federated_model__name")
    def of_model(self, row: Participation) -> str:
        return link_to(row.round.federated_model)

    @display(description="chosen", ordering="is_chosen")
    def chosen(self, row: Participation) -> str:
        return chosen_label(row)

    @display(description="answered", ordering="answered_on")
    def answered(self, row: Participation) -> object:
        return answer_of(row)


def short_table_of_selection(round_: Round) -> str:
    rows = selection_of(round_)
    return short_table(
        "Selection",
        ("Client", "Chosen", "Reason", "Joined", "Answered"),
        [
            (
                link_to(row.client),
                chosen_label(row),
                row.detail or NOTHING,
                row.joined_on or NOTHING,
                answer_of(row),
            )
            for row in rows[:MAX_ROWS]
        ],
        all_url=list_url(Participation, round=round_.pk),
        total=rows.count(),
    )
