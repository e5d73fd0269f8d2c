"""`POST models/<id>/join/`: a client asks whether it may take part now."""

from typing import cast

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework import viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from fma_api.renderers import dumps
from fma_api.v1.callers import IsClient
from fma_api.v1.rounds.serializers import JoinAnswerSerializer, JoinWaitSerializer
from fma_api.v1.waiting import nothing_yet
from fma_django.clients.joining import join
from fma_django.models import Client, FederatedModel


class Joining(viewsets.GenericViewSet[FederatedModel]):
    @extend_schema(
        summary="Ask whether the client may take part now",
        request=None,
        parameters=[JoinWaitSerializer],
        responses=JoinAnswerSerializer,
    )
    @action(methods=["post"], detail=True, permission_classes=[IsClient])
    def join(self, request: Request, pk: str) -> HttpResponse:
        """Answers with the round and its settings, or with the reason for a refusal and the time to ask again.

        With `wait` the server asks again whenever a round begins, until the client is accepted or the time is over.
        """
        query = JoinWaitSerializer(data=request.query_params)
        query.is_valid(raise_exception=True)
        federated_model = self.get_object()
        answer = join(federated_model, cast("Client", request.user))
        shown = JoinAnswerSerializer(answer).data
        if answer.is_accepted or answer.retry_after_s is None:
            return Response(shown)
        return nothing_yet(
            [federated_model.pk],
            query.validated_data["wait"],
            dumps(shown),
            content_type="application/json",
            headers={"Retry-After": str(answer.retry_after_s)},
        )
