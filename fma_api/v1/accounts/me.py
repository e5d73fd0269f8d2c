"""`GET me/`: the caller."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from fma_api.v1.accounts.serializers import CallerTokenSerializer, MeSerializer
from fma_api.v1.announced_bodies import AnnouncedBodies
from fma_api.v1.callers import IsUserOrClient, client_of
from fma_django.accounts.grants import only_model
from fma_django.accounts.roles import CHANGE_EXPERIMENTS, RUN_EXPERIMENTS, USE_ADMIN_SITE
from fma_django.models import ApiToken, FederatedModel

RIGHTS = {
    "create_models": RUN_EXPERIMENTS,
    "manage_own_models": RUN_EXPERIMENTS,
    "manage_all_models": CHANGE_EXPERIMENTS,
    "use_admin": USE_ADMIN_SITE,
}


class MeView(AnnouncedBodies):
    """The caller: a user or a client, its id, its models and its rights."""

    permission_classes = (IsUserOrClient,)

    @extend_schema(responses=MeSerializer)
    def get(self, request: Request) -> Response:
        client = client_of(request)
        user: Any = request.user
        if client is not None:
            models = FederatedModel.objects.filter(clients=client)
            rights = ["send_updates", "send_scores", "read_registered_models"]
        else:
            models = FederatedModel.objects.filter(developer=request.user.pk)
            if (only := only_model(user)) is not None:
                models = models.filter(pk=only)
            rights = [right for right, permission in RIGHTS.items() if user.has_perm(permission)]
        return Response(
            {
                "kind": "user" if client is None else "client",
                "id": request.user.pk if client is None else str(client.pk),
                "username": request.user.get_username() if client is None else None,
                "is_staff": client is None and user.has_perm(USE_ADMIN_SITE),
                "roles": [] if client is not None else sorted(user.groups.values_list("name", flat=True)),
                "organisations": []
                if client is not None
                else [
                    {"id": organisation, "name": name, "role": role}
                    for organisation, name, role in user.memberships.order_by(
                        "organisation__name"
                    ).values_list("organisation", "organisation__name", "role__name")
                ],
                "models": list(models.order_by("pk").values_list("pk", flat=True)),
                "rights": rights,
                "token": CallerTokenSerializer(request.auth).data
                if isinstance(request.auth, ApiToken)
                else None,
            }
        )
