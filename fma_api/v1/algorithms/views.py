"""`algorithms/`: the parts that models can be given, with what each takes."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from fma_api.algorithms import catalogue
from fma_api.v1.algorithms.serializers import AlgorithmSerializer, KindSerializer
from fma_api.v1.announced_bodies import AnnouncedBodies
from fma_api.v1.callers import IsUser


class AlgorithmsView(AnnouncedBodies):
    """Every registered part, plugins included, by kind and name: the whole list, without pages.

    A plugin that cannot be loaded is listed with its `error`; one that was installed meanwhile is found when the
    server starts again.
    """

    permission_classes = (IsUser,)

    @extend_schema(
        operation_id="algorithms_list",
        summary="The parts that models can be given: their parameters, sources and least numbers of updates",
        parameters=[KindSerializer],
        responses=AlgorithmSerializer(many=True),
    )
    def get(self, request: Request) -> Response:
        query = KindSerializer(data=request.query_params)
        query.is_valid(raise_exception=True)
        kind = query.validated_data.get("kind")
        return Response([part for part in catalogue() if kind in (None, part["kind"])])
