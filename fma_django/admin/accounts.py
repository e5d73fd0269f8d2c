"""Users and groups in the admin's theme, with the one thing to do about API tokens: revoke them.

A token itself is not in the database, so its page shows its name and limits, and when it was used.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from django.apps import apps
from django.contrib import admin, messages
from django.contrib.admin import display
from django.contrib.admin.utils import unquote
from django.contrib.auth import get_user_model
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import AbstractUser, Group, Permission, User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.forms import BaseInlineFormSet, ModelForm
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from unfold.admin import TabularInline
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminTextInputWidget

from fma_django import conf
from fma_django.accounts import second_factor
from fma_django.accounts.grants import may
from fma_django.accounts.roles import NAMES as PRESETS
from fma_django.accounts.sign_on import bind_account, unbind_account
from fma_django.accounts.tokens import revoke_tokens
from fma_django.accounts.users import (
    is_only_owner,
    lock_owners,
    may_manage,
    permissions_of,
    require_owner_left,
)
from fma_django.admin.links import NOTHING, link, list_url
from fma_django.admin.refusals import RefusableForm, RefusalsAdmin
from fma_django.admin.themed import ModelAdmin, action
from fma_django.models import ApiToken, FederatedModel
from fma_django.record.queries.row_count import row_count


def take_over() -> None:
    """Replace the plain pages of Django, and remove those of allauth, which show and change the seeds of codes.

    Pages that a project has made itself stay.
    """
    for label in ("account", "mfa", "socialaccount"):
        app = apps.get_app_config(label)
        import_module(
            f"{app.name}.admin"
        )  # or its pages would come after this, for whoever imports this first
        for model in filter(admin.site.is_registered, app.get_models()):
            if type(admin.site.get_model_admin(model)).__module__.startswith("allauth."):
                admin.site.unregister(model)
    user = get_user_model()
    for model, plain, themed in ((user, UserAdmin, ThemedUserAdmin), (Group, GroupAdmin, ThemedGroupAdmin)):
        if admin.site.is_registered(model) and type(admin.site.get_model_admin(model)) is plain:
            admin.site.unregister(model)
            admin.site.register(model, themed)


class ThemedGroupAdmin(GroupAdmin, ModelAdmin[Group]):
    """Roles: what is given or taken must be held by whoever does it, and presets stay."""

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and _holds(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if obj is not None and obj.name in PRESETS:
            return False
        return super().has_delete_permission(request, obj) and _holds(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ("name",) if obj is not None and obj.name in PRESETS else ()

    def get_actions(self, request: HttpRequest) -> Any:
        return _without_delete(super().get_actions(request))

    def formfield_for_manytomany(  # type: ignore[override]  # Django always gives the request
        self, db_field: Any, request: HttpRequest, **kwargs: Any
    ) -> Any:
        field: Any = super().formfield_for_manytomany(db_field, request, **kwargs)
        if db_field.name == "permissions" and not _user(request).is_superuser:
            field.queryset = field.queryset.filter(pk__in=_held(request))
        return field


class TokenInline(TabularInline):
    """The tokens of a user; removing one revokes it. Whoever may change the user may do so."""

    model = ApiToken
    verbose_name_plural = "API tokens (delete one to revoke it)"
    extra = 0
    fields = ("name", "scope", "federated_model", "created_on", "last_used_on", "expires_on")
    readonly_fields = fields
    ordering = ("-pk",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiToken]:
        tokens: QuerySet[ApiToken] = super().get_queryset(request)
        return tokens.select_related("federated_model", "user")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_delete_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # Asked without a user, too: for the rows of all.
        return may(request.user, "auth.change_user") and (obj is None or may_manage(_user(request), obj))


class AccountForm(ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = SocialAccount
        fields = ("uid",)
        labels = {"uid": "subject"}
        widgets = {"uid": UnfoldAdminTextInputWidget}

    def clean_uid(self) -> str:
        subject: str = self.cleaned_data["uid"]
        self.instance.provider = conf.current().oidc_issuer
        if not subject.isprintable():
            raise ValidationError("A subject has printable characters alone.")
        if SocialAccount.objects.filter(provider=self.instance.provider, uid=subject).exists():
            raise ValidationError("This account belongs to a user already.")
        return subject


class AccountForms(BaseInlineFormSet):  # type: ignore[type-arg]
    def clean(self) -> None:
        super().clean()
        subjects = [form.cleaned_data["uid"] for form in self.extra_forms if form.cleaned_data.get("uid")]
        if len(set(subjects)) < len(subjects):
            raise ValidationError("One account is entered twice.")


class AccountInline(TabularInline):
    """The accounts at the identity provider (FMA_OIDC_ISSUER) that log in the user: whoever adds one gives a login."""

    model = SocialAccount
    form = AccountForm
    formset = AccountForms
    verbose_name_plural = "Accounts at the identity provider (sub, as it names people)"
    extra = 0
    fields = ("uid", "provider", "last_login")
    readonly_fields = ("provider", "last_login")

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_delete_permission(request, obj)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_delete_permission(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request.user, "auth.change_user") and (obj is None or may_manage(_user(request), obj))


class UserForm(RefusableForm, UserChangeForm):
    pass


class ThemedUserAdmin(UserAdmin, RefusalsAdmin[AbstractUser]):  # type: ignore[misc, type-arg]
    """Users: nobody changes one who holds more, gives more than they hold, or ends the only owner."""

    form = UserForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = (
        "username",
        "email",
        "is_active",
        "is_superuser",
        "roles",
        "models",
        "tokens",
        "second_factor",
        "last_login",
    )
    list_filter = ("is_active", "is_superuser", "groups")
    actions = ("revoke_tokens", "take_off_second_factor", "lift_code_limit")
    fieldsets = (
        (None, {"fields": ("username", "password_shown", "models")}),
        ("Personal info", {"fields": ("first_name", "last_name", "email")}),
        ("Roles", {"fields": ("is_active", "is_superuser", "groups", "user_permissions")}),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )
    inlines = (TokenInline,)
    readonly_fields = ("password_shown", "models", "last_login", "date_joined")

    def get_queryset(self, request: HttpRequest) -> QuerySet[AbstractUser]:
        tokens = ApiToken.objects.filter(user=OuterRef("pk"))
        rows: QuerySet[AbstractUser] = (
            super()
            .get_queryset(request)
            .annotate(
                num_tokens=row_count(tokens, "user"),
                has_second_factor=Exists(
                    Authenticator.objects.filter(user=OuterRef("pk"), type=second_factor.TOTP)
                ),
            )
        )
        return rows.prefetch_related("groups")

    def get_inlines(self, request: HttpRequest, obj: Any) -> Any:
        if obj is None:
            return ()  # a new user has no tokens
        return (*super().get_inlines(request, obj), *((AccountInline,) if conf.current().oidc_issuer else ()))

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and (
            obj is None or may_manage(_user(request), obj)
        )

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and (
            obj is None or (may_manage(_user(request), obj) and not is_only_owner(obj))
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        shown = super().get_readonly_fields(request, obj)
        return shown if _user(request).is_superuser else (*shown, "is_superuser", "user_permissions")

    def get_actions(self, request: HttpRequest) -> Any:
        return _without_delete(super().get_actions(request))

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_manytomany(db_field, request, **kwargs)
        if db_field.name == "groups" and not _user(request).is_superuser:
            roles = [role.pk for role in Group.objects.all() if _holds(request, role)]
            field.queryset = field.queryset.filter(pk__in=roles)
        return field

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if change:
            require_owner_left(obj)
        super().save_model(request, obj, form, change)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """Raises AccountTaken when somebody else binds an account at the same time."""
        if formset.model is not SocialAccount:
            super().save_formset(request, form, formset, change)
            return
        formset.save(commit=False)
        for account in formset.deleted_objects:
            unbind_account(account, by=_user(request))
        for account in formset.new_objects:
            bind_account(account.user, account.uid, by=_user(request))

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        with transaction.atomic():
            if request.method == "POST":
                lock_owners()  # two who delete each other are asked one after the other
            return super().delete_view(request, object_id, extra_context)

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:
        user = self.get_object(request, unquote(id))
        if user is not None and not self.has_change_permission(request, user):
            raise PermissionDenied
        return super().user_change_password(request, id, form_url)

    @display(description="roles")
    def roles(self, row: AbstractUser) -> str:
        return ", ".join(role.name for role in row.groups.all()) or NOTHING

    @display(description="password")
    def password_shown(self, row: AbstractUser) -> str:
        state = "set" if row.has_usable_password() else "none: cannot log in with one"
        return format_html('{} (<a class="text-link" href="../password/">change it</a>)', state)

    @display(description="API tokens")
    def tokens(self, row: Any) -> str:
        return f"{row.num_tokens:,}"

    @display(description="second factor", boolean=True)
    def second_factor(self, row: Any) -> bool:
        return bool(row.has_second_factor)

    @display(description="models")
    def models(self, row: AbstractUser) -> str:
        return link(list_url(FederatedModel, developer=row.pk), "models of this developer")

    @action(description="Revoke API tokens of selected users", permissions=["change"])
    def revoke_tokens(self, request: HttpRequest, queryset: QuerySet[AbstractUser]) -> None:
        revoked = 0
        for user in queryset:
            if may_manage(_user(request), cast("User", user)) and (number := revoke_tokens(user)):
                self.log_change(request, user, "Revoked all API tokens.")
                revoked += number
        self.message_user(request, f"Revoked {revoked} API tokens.", messages.SUCCESS)

    @action(description="Take off the second factor of selected users", permissions=["change"])
    def take_off_second_factor(self, request: HttpRequest, queryset: QuerySet[AbstractUser]) -> None:
        """For users who lost theirs; not for oneself, who turns it off by a code."""
        taken = self._for_others(request, queryset, second_factor.take_off, "Took off the second factor.")
        self.message_user(request, f"Took off the second factor of {taken} users.", messages.SUCCESS)

    @action(description="Let selected users try codes again", permissions=["change"])
    def lift_code_limit(self, request: HttpRequest, queryset: QuerySet[AbstractUser]) -> None:
        """For users who sent too many wrong codes; not for oneself: whoever has one's session might guess on."""
        limit = "Lifted the limit of wrong codes."
        lifted = self._for_others(request, queryset, second_factor.lift_limit, limit)
        self.message_user(request, f"Lifted the limit of wrong codes of {lifted} users.", messages.SUCCESS)

    def _for_others(
        self, request: HttpRequest, queryset: QuerySet[AbstractUser], act: Callable[..., bool], said: str
    ) -> int:
        """Act on those whom the user of the request may manage, not on that user, and log `said`; how many changed."""
        by, changed = _user(request), 0
        for user in cast("QuerySet[User]", queryset.exclude(pk=by.pk)):
            if may_manage(by, user) and act(user, by=by):
                self.log_change(request, user, said)
                changed += 1
        return changed


def _user(request: HttpRequest) -> User:
    return cast("User", request.user)


def _holds(request: HttpRequest, role: Group | None) -> bool:
    return role is None or all(may(request.user, permission) for permission in permissions_of(role))


def _held(request: HttpRequest) -> list[int]:
    held = _user(request).get_all_permissions()
    rows = Permission.objects.select_related("content_type")
    return [row.pk for row in rows if f"{row.content_type.app_label}.{row.codename}" in held]


def _without_delete(actions: dict[str, Any]) -> dict[str, Any]:
    """One at a time is looked at row by row; several are not."""
    return {name: action for name, action in actions.items() if name != "delete_selected"}
