"""Federated models: the one thing of the record that is edited here, through the services."""

from typing import Any

from django.contrib import messages
from django.contrib.admin import SimpleListFilter, display, register
from django.contrib.admin.utils import unquote
from django.db.models import F, OuterRef, QuerySet, Subquery
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html_join

from fma_core.aggregators import aggregators
from fma_core.errors import FMAError
from fma_core.requirements import requirements
from fma_django.admin.confirmation import ask, is_confirmed
from fma_django.admin.durations import ago
from fma_django.admin.labels import label
from fma_django.admin.links import NOTHING, catalogue_link, link, link_to, list_url
from fma_django.admin.object_filter import object_filter
from fma_django.admin.pretty_json import IndentedEncoder, pretty_json
from fma_django.admin.refusals import RefusableForm, RefusalsAdmin
from fma_django.admin.rounds import CANCEL, short_table_of_rounds
from fma_django.admin.row_count import row_count
from fma_django.admin.themed import ModelAdmin, action
from fma_django.models import (
    Client,
    ClientAggregateScore,
    FederatedModel,
    ModelAggregate,
    ModelArtifact,
    ModelUpdate,
    Round,
)
from fma_django.models.round import RoundState
from fma_django.services import rounds
from fma_django.services.federated_models import (
    change_federated_model,
    create_federated_model,
    delete_federated_model,
)

EMPTY_JSON: dict[str, Any] = {"aggregator_params": {}, "stages": [], "requirement_args": []}
JSON_FIELDS = (
    "aggregator_params",
    "stages",
    "optimiser",
    "staleness",
    "requirement_args",
    "update_schema",
    "client_agg_results_schema",
    "spec",
)
HELP_TEXTS = {
    "aggregator_params": 'Its parameters by name, such as {"f": 2}; empty: their defaults.',
    "stages": 'What is done to the updates first, in order, such as [{"name": "clip_norm", "max_norm": 10}]; '
    "empty: nothing.",
    "optimiser": 'The server optimiser, such as {"name": "fedadam", "learning_rate": 0.01}; '
    "empty: the aggregator's answer is final.",
    "staleness": 'The discount for updates of an old base, such as {"name": "polynomial", "a": 0.5}; empty: none.',
    "requirement_args": "Its parameters in order, such as [10].",
}
PAUSE = {
    "button": "Pause",
    "consequence": "Updates are still accepted and wait; no round closes until the model is resumed.",
}
RESUME = {
    "button": "Resume",
    "consequence": "Rounds close again when the requirement is met; one that meets it already closes at once.",
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
        for field, text in HELP_TEXTS.items():
            if field in self.fields:
                self.fields[field].help_text = text
        for field in JSON_FIELDS:
            if field in self.fields:
                self.fields[field].encoder = IndentedEncoder  # type: ignore[attr-defined]

    def clean_aggregator_params(self) -> Any:
        return self._json_or_empty("aggregator_params")

    def clean_stages(self) -> Any:
        return self._json_or_empty("stages")

    def clean_requirement_args(self) -> Any:
        return self._json_or_empty("requirement_args")

    def _json_or_empty(self, field: str) -> Any:
        value = self.cleaned_data[field]
        return EMPTY_JSON[field] if value is None else value

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

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        return [("active", "Active"), ("paused", "Paused")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        states = {"active": True, "paused": False}
        return (
            queryset.filter(allow_aggregation=states[self.value() or ""])
            if self.value() in states
            else queryset
        )


@register(FederatedModel)
class FederatedModelAdmin(RefusalsAdmin[FederatedModel]):
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
        object_filter(Client, "clients", title="client", newest=0),
        "created_on",
    )
    list_per_page = 50
    search_fields = ("name", "^id", "developer__username")
    search_help_text = "Name, id, or developer"
    date_hierarchy = "created_on"
    autocomplete_fields = ("developer",)
    actions = ("pause_selected", "resume_selected", "cancel_selected")
    actions_detail = ("resume_this", "pause_this", "cancel_this")
    settings_fieldsets = (
        (None, {"fields": ("name", "developer", "allow_aggregation")}),
        (
            "Rules",
            {
                "fields": (
                    "aggregator",
                    "aggregator_params",
                    "stages",
                    "optimiser",
                    "update_kind",
                    "staleness",
                    "requirement",
                    "requirement_args",
                    "furthest_base_agg",
                )
            },
        ),
        ("Formats", {"fields": ("spec", "update_schema", "client_agg_results_schema")}),
    )
    overview_fieldset = (
        "Overview",
        {
            "fields": (
                "state",
                "version",
                "least_updates",
                "related",
                "latest_rounds",
                "created_on",
                "last_modified",
            )
        },
    )
    readonly_fields = (
        "state",
        "version",
        "least_updates",
        "related",
        "latest_rounds",
        "created_on",
        "last_modified",
        "spec_shown",
    )

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
        return settings if obj is None else [self.overview_fieldset, *settings]

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
        given = {name: form.cleaned_data[name] for name in form.cleaned_data if name in form.Meta.fields}
        if change:
            change_federated_model(obj, {name: given[name] for name in form.changed_data})
            return
        developer: Any = given.pop("developer")
        created = create_federated_model(
            developer=developer, name=given.pop("name"), aggregator=given.pop("aggregator"), **given
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
        return label("active", "success") if row.allow_aggregation else label("paused", "warning")

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

    @display(description="spec")
    def spec_shown(self, row: FederatedModel) -> str:
        return pretty_json(row.spec)

    # Actions

    @action(description="Pause selected models", permissions=["change"])
    def pause_selected(self, request: HttpRequest, queryset: QuerySet[FederatedModel]) -> None:
        for row in queryset:
            self._allow_aggregation(request, row, allow=False)

    @action(description="Resume selected models", permissions=["change"])
    def resume_selected(self, request: HttpRequest, queryset: QuerySet[FederatedModel]) -> None:
        for row in queryset:
            self._allow_aggregation(request, row, allow=True)

    @action(description="Cancel the open round of selected models", permissions=["change"])
    def cancel_selected(
        self, request: HttpRequest, queryset: QuerySet[FederatedModel]
    ) -> HttpResponse | None:
        if not is_confirmed(request):
            return ask(self, request, queryset, question="Cancel the open round of these models?", **CANCEL)
        for row in queryset:
            self._cancel_round(request, row)
        return None

    @action(description="Pause", permissions=["change"])
    def pause_this(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = self._found(request, object_id)
        if not is_confirmed(request):
            return self._ask(request, row, "Pause this model?", PAUSE)
        self._allow_aggregation(request, row, allow=False)
        return HttpResponseRedirect(self._page(row))

    @action(description="Resume", permissions=["change"])
    def resume_this(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = self._found(request, object_id)
        if not is_confirmed(request):
            return self._ask(request, row, "Resume this model?", RESUME)
        self._allow_aggregation(request, row, allow=True)
        return HttpResponseRedirect(self._page(row))

    @action(description="Cancel the open round", permissions=["change"])
    def cancel_this(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = self._found(request, object_id)
        if not is_confirmed(request):
            return self._ask(request, row, "Cancel the open round of this model?", CANCEL)
        self._cancel_round(request, row)
        return HttpResponseRedirect(self._page(row))

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        offered: list[Any] = super().get_actions_detail(request, object_id)  # type: ignore[misc]
        row = self.get_object(request, unquote(object_id))
        if row is None:
            return []
        idle = "pause_this" if not row.allow_aggregation else "resume_this"
        return [one for one in offered if not one.action_name.endswith(f"_{idle}")]

    def _found(self, request: HttpRequest, object_id: str) -> FederatedModel:
        row = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404
        return row

    def _page(self, row: FederatedModel) -> str:
        return reverse("admin:fma_django_federatedmodel_change", args=[row.pk])

    def _ask(
        self, request: HttpRequest, row: FederatedModel, question: str, texts: dict[str, str]
    ) -> HttpResponse:
        return ask(self, request, [row], question=question, cancel_url=self._page(row), **texts)

    def _allow_aggregation(self, request: HttpRequest, row: FederatedModel, *, allow: bool) -> None:
        if row.allow_aggregation == allow:
            return
        said = "resumed" if allow else "paused"
        try:
            change_federated_model(row, {"allow_aggregation": allow})
        except FMAError as error:
            self.message_user(request, f"{row} is not {said}: {error.message}", messages.ERROR)
            return
        self.log_change(request, row, f"{said.capitalize()}.")
        self.message_user(request, f"{row} is {said}.", messages.SUCCESS)

    def _cancel_round(self, request: HttpRequest, row: FederatedModel) -> None:
        try:
            found = row.rounds.select_related("federated_model").get(state=RoundState.COLLECTING)
            rounds.cancel(found)
        except (FMAError, Round.DoesNotExist) as error:
            self.message_user(request, f"{row}: {getattr(error, 'message', error)}", messages.ERROR)
            return
        self.log_change(request, row, f"Cancelled {found}.")
        self.message_user(request, f"{found} of {row} is cancelled.", messages.SUCCESS)

    def _spec_is_fixed(self, row: FederatedModel) -> bool:
        return any(rows.exists() for rows in (row.artifacts, row.aggregates, row.model_updates))
