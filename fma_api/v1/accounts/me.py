"""`GET me/`: the caller."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from fma_api.v1.accounts.serializers import MeSerializer
from fma_api.v1.announced_bodies import AnnouncedBodies
from fma_api.v1.callers import IsUserOrClient, client_of
from fma_django.models import FederatedModel


class MeView(AnnouncedBodies):
    """The caller: a user or a client, its id, its models and its rights."""

    permission_classes = (IsUserOrClient,)

    @extend_schema(responses=MeSerializer)
    def get(self, request: Request) -> Response:
        client = client_of(request)
        if client is not None:
            models = FederatedModel.objects.filter(clients=client)
            rights = ["send_updates", "send_scores", "read_registered_models"]
        else:
            models = FederatedModel.objects.filter(developer=request.user.pk)
            rights = ["create_models", "manage_own_models"]
            if request.user.is_staff:
                rights += ["manage_all_models", "use_admin"]
        return Response(
            {
                "kind": "user" if client is None else "client",
                "id": request.user.pk if client is None else str(client.pk),
                "username": request.user.get_username() if client is None else None,
                "is_staff": request.user.is_staff,
                "models": list(models.order_by("pk").values_list("pk", flat=True)),
                "rights": rights,
            }
        )
