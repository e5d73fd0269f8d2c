"""Invitations: who made them, for which models, how many clients they still register. They are made over the API."""

from typing import Any, cast

from django.contrib import messages
from django.contrib.admin import display, register
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from fma_django.admin.confirmation import ask, is_confirmed
from fma_django.admin.history import HistoryAdmin
from fma_django.admin.labels import label
from fma_django.admin.links import NOTHING, link, link_to, list_url
from fma_django.admin.object_filter import object_filter
from fma_django.admin.themed import action
from fma_django.clients.invitations import DELETE_INVITATION, revoke_invitation
from fma_django.models import Client, FederatedModel, Invitation, Organisation

REVOKE = {
    "button": "Revoke",
    "consequence": "A revoked invitation registers nobody any more. Clients that it has registered stay.",
}


@register(Invitation)
class InvitationAdmin(HistoryAdmin[Invitation]):
    list_display = (
        "id",
        "state",
        "models",
        "organisation_shown",
        "left",
        "created_by",
        "created_on",
        "expires_on",
    )
    list_filter = (
        object_filter(Organisation, "organisation"),
        object_filter(FederatedModel, "federated_models", title="federated model"),
        "created_on",
    )
    list_select_related = ("organisation", "created_by")
    search_fields = ("created_by__username", "organisation__name")
    actions = ("revoke_selected",)
    fields = (
        "state",
        "models",
        "organisation_shown",
        "tags_shown",
        "left",
        "registered",
        "created_by",
        "created_on",
        "expires_on",
        "revoked_on",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Invitation]:
        rows = super().get_queryset(request).defer("token_hash")
        return rows.prefetch_related("federated_models", "tags")

    @display(description="state")
    def state(self, row: Invitation) -> str:
        if row.revoked_on is not None:
            return label("revoked", "danger")
        return label("used up", "info") if not row.uses_left else label("open", "success")

    @display(description="models")
    def models(self, row: Invitation) -> str:
        return ", ".join(federated_model.name for federated_model in row.federated_models.all())

    @display(description="organisation", ordering="organisation__name")
    def organisation_shown(self, row: Invitation) -> str:
        return link_to(row.organisation)

    @display(description="tags")
    def tags_shown(self, row: Invitation) -> str:
        return ", ".join(tag.name for tag in row.tags.all()) or NOTHING

    @display(description="uses left", ordering="uses_left")
    def left(self, row: Invitation) -> str:
        return f"{row.uses_left:,} of {row.uses:,}"

    @display(description="clients")
    def registered(self, row: Invitation) -> str:
        return link(list_url(Client, invitation=row.pk), f"{row.clients.count():,}")

    def has_revoke_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm(DELETE_INVITATION))

    @action(description="Revoke selected invitations", permissions=["revoke"])
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet[Invitation]) -> HttpResponse | None:
        if not is_confirmed(request):
            return ask(self, request, queryset, question="Revoke these invitations?", **REVOKE)
        for invitation in queryset:
            revoke_invitation(invitation, by=cast("User", request.user))
            self.log_change(request, invitation, "Revoked.")
            self.message_user(request, f"Invitation {invitation.pk} is revoked.", messages.SUCCESS)
        return None
