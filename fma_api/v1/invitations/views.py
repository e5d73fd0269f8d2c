"""`invitations/`: secrets with which clients register, whatever FMA_REGISTRATION says."""

from typing import Any, cast

from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.urls import get_script_prefix
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from fma_api.v1.announced_bodies import AnnouncedBodies
from fma_api.v1.callers import IsUser
from fma_api.v1.idempotency import IDEMPOTENCY_KEY, idempotency_key, once_for_json
from fma_api.v1.ids import NUMBER
from fma_api.v1.invitations.serializers import (
    InvitationSerializer,
    MadeInvitationSerializer,
    NewInvitationSerializer,
)
from fma_api.v1.pagination import LargePages
from fma_django.clients.invitations import create_invitation, revoke_invitation, visible_invitations
from fma_django.models import Invitation

FORMAT = 1


@extend_schema_view(
    list=extend_schema(
        summary="The caller's invitations, those of their organisations, or all", filters=False
    ),
    retrieve=extend_schema(summary="One invitation, without its token"),
    destroy=extend_schema(summary="Revoke an invitation; clients that it has registered stay"),
)
class InvitationViewSet(
    AnnouncedBodies,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    mixins.DestroyModelMixin,
    viewsets.GenericViewSet[Invitation],
):
    serializer_class = InvitationSerializer
    pagination_class = LargePages
    permission_classes = (IsUser,)
    filter_backends = ()
    queryset = Invitation.objects.order_by("-id")
    lookup_value_regex = NUMBER

    def get_queryset(self) -> QuerySet[Invitation]:
        return (
            visible_invitations(self.request.user)
            .select_related("created_by")
            .prefetch_related("tags", "federated_models")
            .order_by("-id")
        )

    @extend_schema(
        summary="Invite clients",
        request=NewInvitationSerializer,
        responses={201: MadeInvitationSerializer},
        parameters=[IDEMPOTENCY_KEY],
    )
    def create(self, request: Request) -> Response:
        """The token is shown here only, also as a link and as a file.

        With an Idempotency-Key (16 characters or more, random: it stands for the token for a day) a repeated request
        answers the same token.
        """
        idempotency_key(request, at_least=16)
        serializer = NewInvitationSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        made, token = create_invitation(
            by=cast("User", request.user),
            once=once_for_json(request, "invitation"),
            **serializer.validated_data,
        )
        invitation: Any = self.get_queryset().get(pk=made.pk)
        # With the prefix of the path below which a proxy shows the server.
        server = f"{cast('Any', request)._request._current_scheme_host}{get_script_prefix()}"
        models = [federated_model.pk for federated_model in invitation.federated_models.all()]
        invitation.token = token
        invitation.link = f"{server}#invitation={token}&models={','.join(map(str, models))}"
        invitation.file = {"format": FORMAT, "server": server, "models": models, "token": token}
        shown = MadeInvitationSerializer(invitation).data
        return Response(shown, status=201, headers={"Cache-Control": "no-store"})

    def perform_destroy(self, instance: Invitation) -> None:
        revoke_invitation(instance, by=cast("User", self.request.user))
