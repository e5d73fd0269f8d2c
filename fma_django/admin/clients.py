"""Clients: who trains, for which models, and whether they are let in."""

from copy import copy
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin import EmptyFieldListFilter, display, register
from django.contrib.admin.utils import unquote
from django.db.models import F, OuterRef, Q, QuerySet, Subquery
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from fma_core.errors import FMAError
from fma_django.accounts.roles import CHANGE_EXPERIMENTS
from fma_django.admin.confirmation import ask, is_confirmed
from fma_django.admin.labels import label
from fma_django.admin.links import NOTHING, link, link_to, list_url
from fma_django.admin.model_updates import short_table_of_updates
from fma_django.admin.object_filter import object_filter
from fma_django.admin.refusals import RefusableForm, RefusalsAdmin
from fma_django.admin.secret_once import show_once
from fma_django.admin.themed import action
from fma_django.clients.keys import VALID, kept_certificate
from fma_django.clients.registration import approve_client, create_client, describe_client, revoke_client
from fma_django.experiments.changes import change_federated_model
from fma_django.models import (
    Client,
    ClientAggregateScore,
    EvaluationRound,
    FederatedModel,
    Invitation,
    ModelUpdate,
    Organisation,
    Tag,
)
from fma_django.record.queries.row_count import row_count

REVOKE = {
    "button": "Revoke",
    "consequence": "A revoked client is refused everywhere from now on, for every model, and its credential cannot be "
    "made valid again. What it has sent before stays in the record.",
}

APPROVE = {
    "button": "Approve",
    "consequence": "An approved client is let in from now on, and counts in the rounds of its models.",
}
REFUSE = {
    "button": "Refuse",
    "consequence": "A refused client is never let in; it may register again as another one, and wait again.",
}


class ClientForm(RefusableForm):
    federated_models = forms.ModelMultipleChoiceField(
        queryset=FederatedModel.objects.only("name").order_by("name"),
        required=False,
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        label="Registered with",
        help_text="A client may also register itself, where the server allows it (FMA_REGISTRATION).",
    )

    class Meta:
        model = Client
        fields: tuple[str, ...] = ("name", "organisation", "tags")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.instance._state.adding and "federated_models" in self.fields:
            registered = self.instance.federated_models.values_list("pk", flat=True)
            self.initial.setdefault("federated_models", list(registered))


@register(Client)
class ClientAdmin(RefusalsAdmin[Client]):
    form = ClientForm
    list_display = (
        "shown",
        "state",
        "organisation_shown",
        "tags_shown",
        "models",
        "key_shown",
        "updates",
        "last_update_on",
        "last_seen_on",
        "created_on",
    )
    list_filter = (
        "is_active",
        "awaits_approval",
        ("public_key", EmptyFieldListFilter),
        object_filter(Organisation, "organisation"),
        object_filter(Tag, "tags", title="tag"),
        object_filter(FederatedModel, "federated_models", title="federated model"),
        object_filter(EvaluationRound, "evaluations", newest=0),
        object_filter(Invitation, "invitation", newest=0),
        "created_on",
    )
    list_per_page = 50
    show_full_result_count = False
    search_fields = ("id", "name", "organisation__name", "tags__name", "federated_models__name")
    search_help_text = "Client id, its name, organisation, a tag, or one of its models"
    autocomplete_fields = ("organisation",)
    date_hierarchy = "created_on"
    actions = ("approve_selected", "refuse_selected", "revoke_selected")
    actions_detail = ("approve_this", "refuse_this", "revoke_this")
    add_fieldsets = (
        (
            None,
            {
                "fields": ("name", "organisation", "tags", "federated_models"),
                "description": "Saving makes a client and shows its credential, once, for you to hand over.",
            },
        ),
    )
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "id",
                    "state",
                    "name",
                    "organisation",
                    "tags",
                    "last_seen_on",
                    "created_on",
                    "federated_models",
                )
            },
        ),
        (
            "Key",
            {"fields": ("fingerprint_shown", "key_added_on", "certificate_shown", "issuer_shown", "valid")},
        ),
        ("Work", {"fields": ("updates", "scores", "latest_updates")}),
    )
    readonly_fields = (
        *("id", "state", "last_seen_on", "created_on"),
        *("fingerprint_shown", "key_added_on", "certificate_shown", "issuer_shown", "valid"),
        *("updates", "scores", "latest_updates"),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Client]:
        registrations = FederatedModel.clients.through.objects.filter(client=OuterRef("pk"))
        sent = ModelUpdate.objects.filter(client=OuterRef("pk"))
        return (
            super()
            .get_queryset(request)
            .defer("credential_hash")
            .select_related("organisation", "issuer__organisation")
            .prefetch_related("tags")
            .annotate(
                num_models=row_count(registrations, "client"),
                num_sent=row_count(sent, "client"),
                last_sent_on=Subquery(sent.order_by("-pk").values("created_on")[:1]),
            )
        )

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form: Any = super().get_form(request, obj, change, **kwargs)  # a new class for each request
        if "federated_models" in form.base_fields:
            # The clients of an experiment are a part of it. A copy, since all requests share the declared field.
            models = copy(form.base_fields["federated_models"])
            models.disabled = not request.user.has_perm(CHANGE_EXPERIMENTS)
            form.base_fields["federated_models"] = models
        return form

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # its updates are history and would go with it; it can be revoked

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        # What follows is the page with the credential, and nothing else.
        one_button = {"show_save_and_add_another": False, "show_save_and_continue": False}
        return super().add_view(request, form_url, {**(extra_context or {}), **one_button})

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if not change:
            created, credential = create_client()
            obj.pk = created.pk
            obj.refresh_from_db()
            obj.credential_to_show = credential
        fields = form.cleaned_data
        describe_client(obj, name=fields["name"], organisation=fields["organisation"], tags=fields["tags"])
        self._register(obj, set(fields["federated_models"]))

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Save nothing: `describe_client` has saved the tags already."""

    def response_add(
        self, request: HttpRequest, obj: Any, post_url_continue: str | None = None
    ) -> HttpResponse:
        return show_once(
            self,
            request,
            title="The client's credential",
            secret=str(obj.credential_to_show),
            explanation=f"Client {obj.pk} sends it as the header CLIENT-UUID. The server does not keep it: "
            "it cannot be shown again.",
            next_url=reverse("admin:fma_django_client_change", args=[obj.pk]),
        )

    # Columns

    @display(description="client", ordering="id")
    def shown(self, row: Client) -> str:
        return str(row)

    @display(description="organisation", ordering="organisation__name")
    def organisation_shown(self, row: Client) -> str:
        return link_to(row.organisation)

    @display(description="tags")
    def tags_shown(self, row: Client) -> str:
        return ", ".join(tag.name for tag in row.tags.all()) or NOTHING

    @display(description="state", ordering="is_active")
    def state(self, row: Client) -> str:
        if row.awaits_approval:
            return label("waits for approval", "warning")
        return label("active", "success") if row.is_active else label("revoked", "danger")

    @display(description="models", ordering=F("num_models"))
    def models(self, row: Any) -> str:
        return link(list_url(FederatedModel, clients=row.pk), f"{row.num_models:,}")

    @display(description="key", ordering="key_added_on")
    def key_shown(self, row: Client) -> str:
        certificate = kept_certificate(row)
        if certificate is not None:
            is_valid = certificate.state == VALID
            return label(f"certificate {certificate.state}", "success" if is_valid else "danger")
        return NOTHING if row.public_key is None else label("no certificate", "info")

    @display(description="fingerprint")
    def fingerprint_shown(self, row: Client) -> str:
        return row.fingerprint or NOTHING

    @display(description="certificate")
    def certificate_shown(self, row: Client) -> str:
        certificate = kept_certificate(row)
        if certificate is None:
            return NOTHING
        return ": ".join(filter(None, (certificate.organisation, certificate.label))) or NOTHING

    @display(description="issuer")
    def issuer_shown(self, row: Client) -> str:
        certificate = kept_certificate(row)
        return NOTHING if certificate is None else certificate.issuer

    @display(description="valid")
    def valid(self, row: Client) -> str:
        certificate = kept_certificate(row)
        if certificate is None:
            return NOTHING
        return f"{certificate.state}; {certificate.not_before:%Y-%m-%d} to {certificate.not_after:%Y-%m-%d}"

    @display(description="updates", ordering=F("num_sent"))
    def updates(self, row: Any) -> str:
        return link(list_url(ModelUpdate, client=row.pk), f"{row.num_sent:,}")

    @display(description="last update", ordering=F("last_sent_on"))
    def last_update_on(self, row: Any) -> Any:
        return row.last_sent_on or NOTHING

    @display(description="scores")
    def scores(self, row: Client) -> str:
        return link(list_url(ClientAggregateScore, client=row.pk), f"{row.aggregate_scores.count():,}")

    @display(description="latest updates")
    def latest_updates(self, row: Client) -> str:
        return short_table_of_updates(row.model_updates.all(), all_url=list_url(ModelUpdate, client=row.pk))

    # Actions

    @action(description="Approve selected clients", permissions=["change"])
    def approve_selected(self, request: HttpRequest, queryset: QuerySet[Client]) -> HttpResponse | None:
        if not is_confirmed(request):
            return ask(self, request, queryset, question="Approve these clients?", **APPROVE)
        for client in queryset.filter(awaits_approval=True):
            self._approve(request, client)
        return None

    @action(description="Approve", permissions=["change"])
    def approve_this(self, request: HttpRequest, object_id: str) -> HttpResponse:
        client, page = self._client_and_page(request, object_id)
        if not is_confirmed(request):
            return ask(self, request, [client], question="Approve this client?", cancel_url=page, **APPROVE)
        self._approve(request, client)
        return HttpResponseRedirect(page)

    @action(description="Refuse selected clients", permissions=["change"])
    def refuse_selected(self, request: HttpRequest, queryset: QuerySet[Client]) -> HttpResponse | None:
        if not is_confirmed(request):
            return ask(self, request, queryset, question="Refuse these clients?", **REFUSE)
        for client in queryset.filter(awaits_approval=True):
            self._refuse(request, client)
        return None

    @action(description="Refuse", permissions=["change"])
    def refuse_this(self, request: HttpRequest, object_id: str) -> HttpResponse:
        client, page = self._client_and_page(request, object_id)
        if not is_confirmed(request):
            return ask(self, request, [client], question="Refuse this client?", cancel_url=page, **REFUSE)
        self._refuse(request, client)
        return HttpResponseRedirect(page)

    @action(description="Revoke selected clients", permissions=["change"])
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet[Client]) -> HttpResponse | None:
        if not is_confirmed(request):
            return ask(self, request, queryset, question="Revoke these clients?", **REVOKE)
        for client in queryset.filter(is_active=True):
            self._revoke(request, client)
        return None

    @action(description="Revoke", permissions=["change"])
    def revoke_this(self, request: HttpRequest, object_id: str) -> HttpResponse:
        client, page = self._client_and_page(request, object_id)
        if not is_confirmed(request):
            return ask(self, request, [client], question="Revoke this client?", cancel_url=page, **REVOKE)
        self._revoke(request, client)
        return HttpResponseRedirect(page)

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        offered: list[Any] = super().get_actions_detail(request, object_id)  # type: ignore[misc]
        client = self.get_object(request, unquote(object_id))
        if client is None:
            return []
        if client.awaits_approval:
            wanted: tuple[str, ...] = ("_approve_this", "_refuse_this")
        else:
            wanted = ("_revoke_this",) if client.is_active else ()
        return [one for one in offered if one.action_name.endswith(wanted)]

    def _client_and_page(self, request: HttpRequest, object_id: str) -> tuple[Client, str]:
        client = self.get_object(request, unquote(object_id))
        if client is None:
            raise Http404
        return client, reverse("admin:fma_django_client_change", args=[client.pk])

    def _approve(self, request: HttpRequest, client: Client) -> None:
        approve_client(client)
        self.log_change(request, client, "Approved.")
        self.message_user(request, f"Client {client} is approved.", messages.SUCCESS)

    def _refuse(self, request: HttpRequest, client: Client) -> None:
        revoke_client(client)
        self.log_change(request, client, "Refused.")
        self.message_user(request, f"Client {client} is refused.", messages.SUCCESS)

    def _revoke(self, request: HttpRequest, client: Client) -> None:
        try:
            revoke_client(client)
        except FMAError as error:
            self.message_user(request, f"{client}: {error.message}", messages.ERROR)
            return
        self.log_change(request, client, "Revoked.")
        self.message_user(request, f"Client {client} is revoked.", messages.SUCCESS)

    def _register(self, client: Client, wanted: set[FederatedModel]) -> None:
        registered = set(client.federated_models.all())
        for federated_model in sorted(wanted ^ registered, key=lambda row: row.pk):
            # Evaluated only under the lock of the model, so that others who register meanwhile stay.
            clients = Client.objects.filter(
                Q(pk=client.pk) | Q(federated_models=federated_model)
                if federated_model in wanted
                else Q(federated_models=federated_model) & ~Q(pk=client.pk)
            ).distinct()
            change_federated_model(federated_model, {"clients": clients})
            if federated_model in wanted:  # whoever may change clients consents for them
                federated_model.consents.add(client)
