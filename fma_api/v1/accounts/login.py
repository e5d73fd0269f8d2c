"""`POST /api-token-auth/`: a password for a token."""

from collections.abc import Mapping

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from fma_api.parsers import SmallFormParser, SmallJsonParser
from fma_api.v1.accounts.codes import require_code, require_password_login
from fma_api.v1.accounts.serializers import LoginSerializer, TokenSerializer
from fma_api.v1.announced_bodies import AnnouncedBodies
from fma_api.v1.limits import Guesses
from fma_django.accounts.tokens import issue_token


class LoginView(AnnouncedBodies):
    """Exchange a username and a password for a token; guesses are limited (`FMA_LOGIN_RATE`).

    A user with a second factor sends its `code`, too.
    """

    # A password says who is calling: a stale token beside it is not looked at.
    authentication_classes = ()
    permission_classes = ()
    parser_classes = (SmallJsonParser, SmallFormParser)

    @extend_schema(request=LoginSerializer, responses=TokenSerializer, auth=[])
    def post(self, request: Request) -> Response:
        require_password_login()
        serializer = LoginSerializer(data=request.data, context={"request": request})
        username = request.data.get("username") if isinstance(request.data, Mapping) else ""
        guesses = Guesses(request, account=username)
        guesses.count()
        with guesses.checked():
            serializer.is_valid(raise_exception=True)
        guesses.give_back()
        user = serializer.validated_data["user"]
        require_code(request, user, serializer.validated_data.get("code", ""))
        token = issue_token(user)
        return Response({"token": token}, headers={"Cache-Control": "no-store"})
