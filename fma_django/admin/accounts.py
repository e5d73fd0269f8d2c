"""Users and groups in the admin's theme, with the one thing to do about API tokens: revoke them.

The token itself is not in the database, so there is nothing to show but when it was issued.
"""

from datetime import datetime
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import display
from django.contrib.auth import get_user_model
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import AbstractUser, Group
from django.db.models import F, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from fma_django.admin.durations import ago
from fma_django.admin.links import link, list_url
from fma_django.admin.themed import ModelAdmin, action
from fma_django.clients.tokens import revoke_token
from fma_django.models import FederatedModel


def take_over() -> None:
    """Replace the plain pages of Django and REST framework; those that a project has made itself stay."""
    user = get_user_model()
    for model, plain, themed in ((user, UserAdmin, ThemedUserAdmin), (Group, GroupAdmin, ThemedGroupAdmin)):
        if admin.site.is_registered(model) and type(admin.site.get_model_admin(model)) is plain:
            admin.site.unregister(model)
            admin.site.register(model, themed)


class ThemedGroupAdmin(GroupAdmin, ModelAdmin[Group]):
    pass


class ThemedUserAdmin(UserAdmin, ModelAdmin[AbstractUser]):  # type: ignore[misc, type-arg]
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "email", "is_active", "is_staff", "models", "token", "last_login")
    actions = ("revoke_tokens",)
    fieldsets = (
        (None, {"fields": ("username", "password_shown", "token", "models")}),
        *UserAdmin.fieldsets[1:],  # type: ignore[index]
    )
    readonly_fields = ("password_shown", "token", "models", "last_login", "date_joined")

    def get_queryset(self, request: HttpRequest) -> QuerySet[AbstractUser]:
        rows: QuerySet[AbstractUser] = (
            super().get_queryset(request).annotate(token_issued_on=F("api_token__created_on"))
        )
        return rows

    @display(description="password")
    def password_shown(self, row: AbstractUser) -> str:
        state = "set" if row.has_usable_password() else "none: cannot log in with one"
        return format_html('{} (<a class="text-link" href="../password/">change it</a>)', state)

    @display(description="API token")
    def token(self, row: Any) -> str:
        issued: datetime | None = getattr(row, "token_issued_on", None)
        return "none" if issued is None else f"issued {ago(issued)}"

    @display(description="models")
    def models(self, row: AbstractUser) -> str:
        return link(list_url(FederatedModel, developer__id__exact=row.pk), "models of this developer")

    @action(description="Revoke API tokens of selected users", permissions=["change"])
    def revoke_tokens(self, request: HttpRequest, queryset: QuerySet[AbstractUser]) -> None:
        owners = [user for user in queryset if revoke_token(user)]
        for owner in owners:
            self.log_change(request, owner, "Revoked the API token.")
        self.message_user(request, f"Revoked {len(owners)} API tokens.", messages.SUCCESS)
