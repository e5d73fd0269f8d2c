"""Updates and initial models that are on their way in parts."""

from django.contrib.admin import display, register
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat

from fma_django.admin.history import HistoryAdmin
from fma_django.admin.links import NOTHING, link_to
from fma_django.admin.object_filter import object_filter
from fma_django.errors import UnknownUpload, UploadElsewhere
from fma_django.models import Client, FederatedModel, Upload
from fma_django.updates.uploads import offset_of


@register(Upload)
class UploadAdmin(HistoryAdmin[Upload]):
    list_display = ("name", "who", "of_model", "arrived", "size", "became", "created_on", "expires_on")
    list_filter = (
        object_filter(FederatedModel, "federated_model"),
        object_filter(Client, "client", newest=0),
        "created_on",
    )
    search_fields = ("id", "client__name", "developer__username", "federated_model__name")
    search_help_text = "Upload id, client, developer, or model"
    date_hierarchy = "created_on"
    readonly_fields = ("who", "of_model", "arrived", "size", "became")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Upload]:
        rows = (
            super()
            .get_queryset(request)
            .select_related("client", "developer", "federated_model", "update", "artifact")
        )
        return rows.defer("client__credential_hash", "federated_model__spec")

    @display(description="upload", ordering="created_on")
    def name(self, row: Upload) -> str:
        return str(row)

    @display(description="sender", ordering="client")
    def who(self, row: Upload) -> str:
        return link_to(row.sender)

    @display(description="model", ordering="federated_model__name")
    def of_model(self, row: Upload) -> str:
        return link_to(row.federated_model)

    @display(description="arrived")
    def arrived(self, row: Upload) -> str:
        try:
            return filesizeformat(offset_of(row))
        except (UnknownUpload, UploadElsewhere):
            return NOTHING

    @display(description="size", ordering="size_bytes")
    def size(self, row: Upload) -> str:
        return filesizeformat(row.size_bytes)

    @display(description="became", ordering="update")
    def became(self, row: Upload) -> str:
        return link_to(row.update or row.artifact)
