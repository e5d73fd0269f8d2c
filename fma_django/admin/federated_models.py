"""Federated models: they are created, changed and deleted by the functions that the API calls."""

from typing import Any, get_args

from django.contrib.admin import SimpleListFilter, display, register
from django.contrib.auth.models import User
from django.db.models import F, JSONField, OuterRef, Q, QuerySet, Subquery
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html_join

from fma_core.aggregation.aggregators import aggregators
from fma_core.errors import FMAError
from fma_core.rounds.columns import COLUMNS, Group
from fma_core.rounds.requirements import requirements
from fma_django.admin.config_versions import short_table_of_configurations
from fma_django.admin.curves import curves_html
from fma_django.admin.durations import ago
from fma_django.admin.experiment_life import ExperimentLifeAdmin, user_of
from fma_django.admin.labels import Kind, label
from fma_django.admin.links import NOTHING, catalogue_link, link, link_to, list_url
from fma_django.admin.object_filter import object_filter
from fma_django.admin.pretty_json import pretty_json
from fma_django.admin.refusals import RefusableForm
from fma_django.admin.rounds import short_table_of_rounds
from fma_django.experiments.changes import (
    change_federated_model,
    create_federated_model,
    delete_federated_model,
)
from fma_django.models import (
    Client,
    ClientAggregateScore,
    FederatedModel,
    ModelAggregate,
    ModelArtifact,
    ModelUpdate,
    Round,
)
from fma_django.models.federated_model import ModelState
from fma_django.models.round import RoundState
from fma_django.record.queries.row_count import row_count
from fma_django.rounds.rows import find_open_round

JSON_FIELDS = [field for field in FederatedModel._meta.concrete_fields if isinstance(field, JSONField)]

OVERVIEW = (
    "state",
    "end_reason",
    "version",
    "least_updates",
    "related",
    "latest_rounds",
    "latest_configurations",
    "started_on",
    "ended_on",
    "curves",
    "created_on",
    "last_modified",
)
KINDS: dict[str, Kind] = {
    ModelState.CREATED: "info",
    ModelState.RUNNING: "success",
    ModelState.PAUSED: "warning",
    ModelState.ENDED: "neutral",
}


class FederatedModelForm(RefusableForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field, known, none in (
            ("aggregator", aggregators.names(), "Select an aggregator"),
            ("requirement", requirements.names(), "none given: one update is enough"),
        ):
            if field in self.fields:
                self.fields[field].widget.choices = self._choices(field, known, none)
        for column in COLUMNS:
            if column.hint and column.name in self.fields:
                field_help = self.fields[column.name].help_text
                self.fields[column.name].help_text = f"{field_help} {column.hint}"
        if "seed" in self.fields:
            self.fields["seed"].required = False

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean() or {}
        for json_field in JSON_FIELDS:
            if cleaned.get(json_field.name, ...) is None and not json_field.null:
                cleaned[json_field.name] = json_field.get_default()
        if cleaned.get("seed", 0) is None:
            del cleaned["seed"]
        return cleaned

    def _choices(self, field: str, known: tuple[str, ...], none: str) -> list[tuple[str, str]]:
        names = [*known]
        stored = getattr(self.instance, field)
        if (
            stored and stored not in names
        ):  # of a plugin that is gone: saving says so, and nothing is changed silently
            names.append(stored)
        return [("", none), *((name, name) for name in names)]


class ActivityFilter(SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("active", "Running"), ("paused", "Not started, or paused"), ("ended", "Ended")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        states: dict[str | None, Q] = {
            "active": Q(allow_aggregation=True),
            "paused": Q(allow_aggregation=False, ended_on__isnull=True),
            "ended": Q(ended_on__isnull=False),
        }
        return queryset.filter(states.get(self.value(), Q()))


def _fields_of(group: Group) -> tuple[str, ...]:
    columns = tuple(column.name for column in COLUMNS if column.group == group)
    return ("spec", *columns) if group == "Formats" else columns


@register(FederatedModel)
class FederatedModelAdmin(ExperimentLifeAdmin):
    form = FederatedModelForm
    list_display = (
        "name",
        "state",
        "developer_shown",
        "aggregator",
        "requirement_shown",
        "clients_shown",
        "open_round",
        "last_aggregate",
        "version",
        "created_on",
    )
    list_select_related = ("developer", "current_artifact")
    list_filter = (
        ActivityFilter,
        "aggregator",
        "requirement",
        object_filter(User, "developer", title="developer", newest=0),
        object_filter(Client, "clients", title="client", newest=0),
        "created_on",
    )
    list_per_page = 50
    search_fields = ("name", "^id", "developer__username")
    search_help_text = "Name, id, or developer"
    date_hierarchy = "created_on"
    autocomplete_fields = ("developer",)
    settings_fieldsets: tuple[tuple[str | None, dict[str, Any]], ...] = (
        (None, {"fields": ("name", "developer")}),
        *((group, {"fields": _fields_of(group)}) for group in get_args(Group)),
    )
    readonly_fields = (*OVERVIEW, "spec_shown")

    def get_queryset(self, request: HttpRequest) -> QuerySet[FederatedModel]:
        registrations = FederatedModel.clients.through.objects.filter(
            federatedmodel=OuterRef("pk")
        ).order_by()
        collecting = Round.objects.filter(
            federated_model=OuterRef("pk"), state=RoundState.COLLECTING
        ).order_by()
        aggregates = ModelAggregate.objects.filter(federated_model=OuterRef("pk")).order_by("-id")
        return (
            super()
            .get_queryset(request)
            .select_related("developer", "current_artifact")
            .annotate(
                num_clients=row_count(registrations, "federatedmodel"),
                open_round_id=Subquery(collecting.values("pk")[:1]),
                open_round_number=Subquery(collecting.values("number")[:1]),
                open_round_updates=Subquery(collecting.values("num_updates")[:1]),
                last_aggregate_id=Subquery(aggregates.values("pk")[:1]),
                last_aggregate_on=Subquery(aggregates.values("created_on")[:1]),
            )
        )

    # Editing

    def lock(self, row: FederatedModel) -> None:
        if find_open_round(row) is None:  # as whoever changes one that has ended
            super().lock(row)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        fixed = obj is not None and self._spec_is_fixed(obj)
        settings = [
            (
                title,
                {
                    "fields": tuple(
                        "spec_shown" if fixed and field == "spec" else field for field in options["fields"]
                    ),
                    "description": catalogue_link() if title == "Rules" else "",
                },
            )
            for title, options in self.settings_fieldsets
        ]
        if obj is None:
            return settings
        return self.with_started_from([("Overview", {"fields": OVERVIEW}), *settings], request, obj)

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name in ("aggregator", "requirement"):
            from unfold.widgets import UnfoldAdminSelectWidget

            kwargs["widget"] = UnfoldAdminSelectWidget()
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        return {
            "developer": str(request.user.pk),
            "aggregator": "mean",
            **super().get_changeform_initial_data(request),
        }

    def save_model(self, request: HttpRequest, obj: FederatedModel, form: Any, change: bool) -> None:
        values = {name: form.cleaned_data[name] for name in form.cleaned_data if name in form.Meta.fields}
        if change:
            changes = {name: values[name] for name in form.changed_data if name in values}
            change_federated_model(obj, changes, by=user_of(request))
            return
        developer: Any = values.pop("developer")
        created = create_federated_model(
            developer=developer, name=values.pop("name"), aggregator=values.pop("aggregator"), **values
        )
        obj.pk = created.pk
        obj.refresh_from_db()

    # Deleting: with everything in it, for whoever may delete models. What it takes along is counted, not listed.

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[Any], dict[Any, int], set[Any], list[Any]]:
        ids = [row.pk for row in objs]
        counts: dict[Any, int] = {"federated models": len(ids)}
        for related, path in (
            (Round, "federated_model"),
            (ModelUpdate, "federated_model"),
            (ModelAggregate, "federated_model"),
            (ModelArtifact, "federated_model"),
            (ClientAggregateScore, "aggregate__federated_model"),
        ):
            counts[related._meta.verbose_name_plural] = related._default_manager.filter(
                **{f"{path}__in": ids}
            ).count()
        forbidden = set() if self.has_delete_permission(request) else {self.opts.verbose_name}
        return [str(row) for row in objs], counts, forbidden, []

    def delete_model(self, request: HttpRequest, obj: FederatedModel) -> None:
        delete_federated_model(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[FederatedModel]) -> None:
        for row in queryset:
            delete_federated_model(row)

    # Columns

    @display(description="state", ordering="allow_aggregation")
    def state(self, row: FederatedModel) -> str:
        return label(row.state.label.lower(), KINDS[row.state])

    @display(description="developer", ordering="developer__username")
    def developer_shown(self, row: FederatedModel) -> str:
        return str(row.developer)

    @display(description="requirement", ordering="requirement")
    def requirement_shown(self, row: FederatedModel) -> str:
        if not row.requirement:
            return "one update"
        args = ", ".join(str(argument) for argument in row.requirement_args or [])
        return f"{row.requirement}({args})" if args else row.requirement

    @display(description="clients", ordering=F("num_clients"))
    def clients_shown(self, row: Any) -> str:
        return link(list_url(Client, federated_models=row.pk), f"{row.num_clients:,}")

    @display(description="open round")
    def open_round(self, row: Any) -> str:
        if row.open_round_id is None:
            return NOTHING
        url = reverse("admin:fma_django_round_change", args=[row.open_round_id])
        plural = "" if row.open_round_updates == 1 else "s"
        return link(url, f"round {row.open_round_number}, {row.open_round_updates:,} update{plural}")

    @display(description="last aggregate", ordering=F("last_aggregate_on"))
    def last_aggregate(self, row: Any) -> str:
        if row.last_aggregate_id is None:
            return NOTHING
        url = reverse("admin:fma_django_modelaggregate_change", args=[row.last_aggregate_id])
        return link(url, ago(row.last_aggregate_on))

    @display(description="version")
    def version(self, row: FederatedModel) -> str:
        artifact = row.current_artifact
        return NOTHING if artifact is None else link_to(artifact, artifact.version)

    # The overview

    @display(description="updates that a round needs")
    def least_updates(self, row: FederatedModel) -> str:
        try:
            needed = f"{row.build_strategy().min_updates:,}"
        except FMAError as error:  # a plugin is gone
            return error.message
        return f"{needed} at least, by its rules; its requirement may ask for more"

    @display(description="contents")
    def related(self, row: FederatedModel) -> str:
        counts = (
            (Round, row.rounds.count()),
            (ModelUpdate, row.model_updates.count()),
            (ModelAggregate, row.aggregates.count()),
            (ModelArtifact, row.artifacts.count()),
        )
        links = [
            link(list_url(model, federated_model=row.pk), f"{model._meta.verbose_name_plural}: {count:,}")
            for model, count in counts
        ]
        clients = link(list_url(Client, federated_models=row.pk), f"clients: {row.clients.count():,}")
        return format_html_join(" · ", "{}", ((text,) for text in (clients, *links)))

    @display(description="latest rounds")
    def latest_rounds(self, row: FederatedModel) -> str:
        return short_table_of_rounds(row)

    @display(description="configuration")
    def latest_configurations(self, row: FederatedModel) -> str:
        return short_table_of_configurations(row)

    @display(description="metrics")
    def curves(self, row: FederatedModel) -> str:
        return curves_html(row)

    @display(description="spec")
    def spec_shown(self, row: FederatedModel) -> str:
        return pretty_json(row.spec)

    def _spec_is_fixed(self, row: FederatedModel) -> bool:
        return any(rows.exists() for rows in (row.artifacts, row.aggregates, row.model_updates))
