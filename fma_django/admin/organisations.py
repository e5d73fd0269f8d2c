"""Organisations and tags: what operators say of clients, beside what the clients say of themselves."""

from typing import Any

from django.contrib.admin import display, register
from django.db.models import F, OuterRef, QuerySet
from django.http import HttpRequest
from unfold.admin import TabularInline

from fma_django.admin.links import NOTHING, link, list_url
from fma_django.admin.themed import ModelAdmin
from fma_django.models import Client, Membership, Organisation, Tag
from fma_django.record.queries.row_count import row_count


class MembershipInline(TabularInline):  # type: ignore[misc]  # unfold has no types
    model = Membership
    extra = 0
    autocomplete_fields = ("user",)


@register(Organisation)
class OrganisationAdmin(ModelAdmin[Organisation]):
    list_display = ("name", "clients_shown", "members_shown", "created_on")
    list_filter = ("created_on",)
    search_fields = ("name",)
    fields = ("name", "clients_shown", "created_on")
    readonly_fields = ("clients_shown", "created_on")
    inlines = (MembershipInline,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Organisation]:
        clients = Client.objects.filter(organisation=OuterRef("pk"))
        members = Organisation.members.through.objects.filter(organisation=OuterRef("pk"))
        return (
            super()
            .get_queryset(request)
            .annotate(
                num_clients=row_count(clients, "organisation"), num_members=row_count(members, "organisation")
            )
        )

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
