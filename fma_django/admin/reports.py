"""Reports of clients: their telemetry and their errors."""

from django.contrib.admin import display, register
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat

from fma_django.admin.history import HistoryAdmin
from fma_django.admin.links import NOTHING, link_to
from fma_django.admin.object_filter import object_filter
from fma_django.models import Client, ClientError, ClientTelemetry, FederatedModel


@register(ClientTelemetry)
class ClientTelemetryAdmin(HistoryAdmin[ClientTelemetry]):
    list_display = (
        "name",
        "who",
        "created_on",
        "free_memory",
        "battery",
        "ping_ms",
        "download_mbps",
        "client_version",
    )
    list_filter = (object_filter(Client, "client", newest=0), "device_kind", "system", "created_on")
    search_fields = ("client__name", "client_version", "framework")
    search_help_text = "Client, version, or framework"
    date_hierarchy = "created_on"
    readonly_fields = ("who",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ClientTelemetry]:
        return super().get_queryset(request).select_related("client").defer("client__credential_hash")

    @display(description="report", ordering="id")
    def name(self, row: ClientTelemetry) -> str:
        return str(row)

    @display(description="client", ordering="client")
    def who(self, row: ClientTelemetry) -> str:
        return link_to(row.client)

    @display(description="free memory", ordering="free_memory_bytes")
    def free_memory(self, row: ClientTelemetry) -> str:
        return NOTHING if row.free_memory_bytes is None else filesizeformat(row.free_memory_bytes)


@register(ClientError)
class ClientErrorAdmin(HistoryAdmin[ClientError]):
    list_display = ("code", "who", "of_model", "round_number", "message", "created_on")
    list_filter = (
        object_filter(FederatedModel, "federated_model"),
        object_filter(Client, "client", newest=0),
        "created_on",
    )
    search_fields = ("code", "message", "client__name")
    search_help_text = "Code, words of the message, or client"
    date_hierarchy = "created_on"
    readonly_fields = ("who", "of_model")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ClientError]:
        rows = super().get_queryset(request).select_related("client", "federated_model")
        return rows.defer("client__credential_hash", "federated_model__spec")

    @display(description="client", ordering="client")
    def who(self, row: ClientError) -> str:
        return link_to(row.client)

    @display(description="model", ordering="federated_model__name")
    def of_model(self, row: ClientError) -> str:
        return link_to(row.federated_model)
