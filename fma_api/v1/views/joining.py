"""`POST models/<id>/join/`: a client's one question, "may I take part now?"."""

import time
from functools import partial
from typing import cast

from drf_spectacular.utils import extend_schema
from rest_framework import viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from fma_api.v1.callers import IsClient
from fma_api.v1.round_serializers import JoinAnswerSerializer, JoinWaitSerializer
from fma_api.v1.waiting import seconds_to_wait, wait_for
from fma_django.models import Client, FederatedModel
from fma_django.selectors.rounds import Turn, turn_of
from fma_django.services.joining import JoinAnswer, join


class Joining(viewsets.GenericViewSet[FederatedModel]):
    @extend_schema(
        summary="May the client take part now?",
        request=None,
        parameters=[JoinWaitSerializer],
        responses=JoinAnswerSerializer,
    )
    @action(methods=["post"], detail=True, permission_classes=[IsClient])
    def join(self, request: Request, pk: str) -> Response:
        """Accepted, with all that it must know to train; or not, with the reason and when to ask again.

        With `wait` it is asked again whenever a round begins, until it is accepted or the time is over.
        """
        query = JoinWaitSerializer(data=request.query_params)
        query.is_valid(raise_exception=True)
        wait_s = seconds_to_wait(query.validated_data["wait"])
        answer = _joined_in_time(self.get_object(), cast("Client", request.user), wait_s)
        after_s = answer.retry_after_s
        headers = None if after_s is None else {"Retry-After": str(after_s)}
        return Response(JoinAnswerSerializer(answer).data, headers=headers)


def _joined_in_time(federated_model: FederatedModel, client: Client, wait_s: float) -> JoinAnswer:
    until = time.monotonic() + wait_s
    while True:
        turn = turn_of(federated_model) if wait_s > 0 else None
        answer = join(federated_model, client)
        left_s = until - time.monotonic()
        if answer.is_accepted or answer.retry_after_s is None or left_s <= 0:
            return answer
        if wait_for(partial(_changed, federated_model, turn), left_s) is None:
            return answer


def _changed(federated_model: FederatedModel, turn: Turn | None) -> Turn | None:
    found = turn_of(federated_model)
    return found if found != turn else None
