"""Organisations and tags: what operators say of clients, beside what the clients say of themselves."""

from typing import Any, cast

from django import forms
from django.contrib.admin import display, register
from django.contrib.auth.models import User
from django.db.models import F, OuterRef, QuerySet
from django.http import HttpRequest
from unfold.admin import TabularInline

from fma_django.accounts.users import remove_member, set_member
from fma_django.admin.links import NOTHING, link, list_url
from fma_django.admin.refusals import RefusalsAdmin
from fma_django.admin.themed import ModelAdmin
from fma_django.clients.issuers import CHANGE_ORGANISATION, add_issuer, revoke_issuer
from fma_django.models import Client, Issuer, Membership, Organisation, Tag
from fma_django.record.queries.row_count import row_count


class MembershipInline(TabularInline):
    model = Membership
    extra = 0
    autocomplete_fields = ("user",)


class IssuerForm(forms.ModelForm):  # type: ignore[type-arg]
    revoke = forms.BooleanField(required=False, help_text="Its certificates count for nothing, for good.")

    class Meta:
        model = Issuer
        fields: tuple[str, ...] = ("public_key", "expires_on")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        is_new = self.instance._state.adding
        for name in ("public_key", "expires_on"):
            self.fields[name].disabled = not is_new
        self.fields["revoke"].disabled = is_new or self.instance.revoked_on is not None


class IssuerInline(TabularInline):
    """Keys that sign those of clients; whoever may change the organisation enters and revokes them."""

    model = Issuer
    form = IssuerForm
    extra = 0
    can_delete = False
    fields = ("public_key", "fingerprint_shown", "created_on", "expires_on", "revoked_on", "revoke")
    readonly_fields = ("fingerprint_shown", "created_on", "revoked_on")

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm("fma_django.view_organisation"))

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm(CHANGE_ORGANISATION))

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm(CHANGE_ORGANISATION))

    @display(description="fingerprint")
    def fingerprint_shown(self, row: Issuer) -> str:
        return row.fingerprint if row.public_key else NOTHING


@register(Organisation)
class OrganisationAdmin(RefusalsAdmin[Organisation]):
    """Organisations and their members, whose roles are given and taken as over the API."""

    list_display = ("name", "clients_shown", "members_shown", "created_on")
    list_filter = ("created_on",)
    search_fields = ("name",)
    fields = ("name", "clients_shown", "created_on")
    readonly_fields = ("clients_shown", "created_on")
    inlines = (MembershipInline, IssuerInline)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Organisation]:
        clients = Client.objects.filter(organisation=OuterRef("pk"))
        members = Membership.objects.filter(organisation=OuterRef("pk"))
        return (
            super()
            .get_queryset(request)
            .annotate(
                num_clients=row_count(clients, "organisation"), num_members=row_count(members, "organisation")
            )
        )

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """Raises NotPermitted; InvalidKey, KeyTaken, InvalidValue for issuers."""
        by = cast("User", request.user)
        if formset.model is Issuer:
            self._save_issuers(formset, by)
            return
        formset.save(commit=False)
        changed = [member for member, _ in formset.changed_objects]
        before = {
            member.pk: member
            for member in Membership.objects.select_related("role", "organisation").filter(
                pk__in=[member.pk for member in (*changed, *formset.deleted_objects)]
            )
        }
        replaced = [member for member in changed if before[member.pk].user_id != member.user_id]
        for member in (*formset.deleted_objects, *replaced):
            remove_member(before[member.pk], by=by)
        for member in (*changed, *formset.new_objects):
            set_member(member.organisation, member.user, member.role, by=by)

    def _save_issuers(self, formset: Any, by: User) -> None:
        formset.save(commit=False)
        for issuer in formset.new_objects:
            add_issuer(issuer.organisation, issuer.public_key, expires_on=issuer.expires_on, by=by)
        for form in formset.initial_forms:
            if form.cleaned_data.get("revoke"):
                revoke_issuer(form.instance, by=by)

    @display(description="clients", ordering=F("num_clients"))
    def clients_shown(self, row: Any) -> str:
        if row.pk is None:
            return NOTHING
        return link(list_url(Client, organisation=row.pk), f"{row.num_clients:,}")

    @display(description="members", ordering=F("num_members"))
    def members_shown(self, row: Any) -> str:
        return f"{row.num_members:,}"


@register(Tag)
class TagAdmin(ModelAdmin[Tag]):
    list_display = ("name", "clients_shown")
    search_fields = ("name",)
    fields = ("name", "clients_shown")
    readonly_fields = ("clients_shown",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Tag]:
        clients = Client.tags.through.objects.filter(tag=OuterRef("pk"))
        return super().get_queryset(request).annotate(num_clients=row_count(clients, "tag"))

    @display(description="clients", ordering=F("num_clients"))
    def clients_shown(self, row: Any) -> str:
        if row.pk is None:
            return NOTHING
        return link(list_url(Client, tags=row.pk), f"{row.num_clients:,}")
