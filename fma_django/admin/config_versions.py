"""Versions of configurations: who changed what, when, and which rounds ran with it."""

from django.contrib.admin import display, register
from django.db.models import QuerySet
from django.http import HttpRequest

from fma_django.admin.history import HistoryAdmin
from fma_django.admin.links import link, link_to, list_url
from fma_django.admin.object_filter import object_filter
from fma_django.admin.pretty_json import pretty_json
from fma_django.admin.short_tables import MAX_ROWS, short_table
from fma_django.models import ConfigVersion, FederatedModel, Round
from fma_django.record.queries.configurations import history_of, with_changes


@register(ConfigVersion)
class ConfigVersionAdmin(HistoryAdmin[ConfigVersion]):
    list_display = ("name", "of_model", "by", "changed_on")
    list_filter = (object_filter(FederatedModel, "federated_model"), "changed_on")
    search_fields = ("federated_model__name", "changed_by__username")
    search_help_text = "Model, or who changed it"
    date_hierarchy = "changed_on"
    fieldsets = (
        (None, {"fields": ("of_model", "number", "by", "changed_on", "used_by")}),
        ("Configuration", {"fields": ("changed", "whole")}),
    )
    readonly_fields = ("of_model", "by", "used_by", "changed", "whole")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ConfigVersion]:
        rows = super().get_queryset(request).select_related("federated_model", "changed_by")
        return rows.defer("federated_model__spec")

    @display(description="configuration", ordering="number")
    def name(self, row: ConfigVersion) -> str:
        return str(row)

    @display(description="model", ordering="federated_model__name")
    def of_model(self, row: ConfigVersion) -> str:
        return link_to(row.federated_model)

    @display(description="changed by", ordering="changed_by__username")
    def by(self, row: ConfigVersion) -> str:
        return "the server" if row.changed_by is None else str(row.changed_by)

    @display(description="rounds that run with it")
    def used_by(self, row: ConfigVersion) -> str:
        return link(list_url(Round, config_version=row.pk), f"{row.rounds.count():,}")

    @display(description="changed")
    def changed(self, row: ConfigVersion) -> str:
        changes = with_changes([row])[0].changes
        shown = {
            column: {"before": change.before, "after": change.after} for column, change in changes.items()
        }
        return pretty_json(shown or None)

    @display(description="whole configuration")
    def whole(self, row: ConfigVersion) -> str:
        return pretty_json(row.configuration)


def short_table_of_configurations(federated_model: FederatedModel) -> str:
    versions = history_of(federated_model)
    return short_table(
        "Configuration",
        ("Version", "Changed", "By", "On"),
        [
            (
                link_to(each.version, each.version.number),
                ", ".join(each.changes) or "–",
                "the server" if each.version.changed_by is None else each.version.changed_by,
                each.version.changed_on,
            )
            for each in with_changes(list(versions[:MAX_ROWS]))
        ],
        all_url=list_url(ConfigVersion, federated_model=federated_model.pk),
        total=versions.count(),
    )
