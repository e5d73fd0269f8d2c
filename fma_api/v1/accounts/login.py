"""`POST /api-token-auth/`: a password for a token."""

from collections.abc import Mapping

from drf_spectacular.utils import extend_schema
from rest_framework.authtoken.serializers import AuthTokenSerializer
from rest_framework.request import Request
from rest_framework.response import Response

from fma_api.parsers import SmallFormParser, SmallJsonParser
from fma_api.v1.accounts.serializers import TokenSerializer
from fma_api.v1.announced_bodies import AnnouncedBodies
from fma_api.v1.limits import Guesses
from fma_django.accounts.tokens import issue_token


class LoginView(AnnouncedBodies):
    """Exchange a username and a password for a token; guesses are limited (`FMA_LOGIN_RATE`)."""

    # A password says who is calling: a stale token beside it is not looked at.
    authentication_classes = ()
    permission_classes = ()
    parser_classes = (SmallJsonParser, SmallFormParser)

    @extend_schema(request=AuthTokenSerializer, responses=TokenSerializer, auth=[])
    def post(self, request: Request) -> Response:
        serializer = AuthTokenSerializer(data=request.data, context={"request": request})
        username = request.data.get("username") if isinstance(request.data, Mapping) else ""
        guesses = Guesses(request, account=username)
        guesses.count()
        with guesses.checked():
            serializer.is_valid(raise_exception=True)
        guesses.give_back()
        token = issue_token(serializer.validated_data["user"])
        return Response({"token": token}, headers={"Cache-Control": "no-store"})
