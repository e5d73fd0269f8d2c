"""`tokens/`: the API tokens of the caller, and of users whom the caller may change."""

from typing import cast

from django.contrib.auth.models import User
from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import mixins, viewsets
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import ValidationError

from fma_api.v1.accounts.serializers import ApiTokenSerializer, MadeTokenSerializer, NewTokenSerializer
from fma_api.v1.announced_bodies import AnnouncedBodies
from fma_api.v1.callers import IsUser
from fma_api.v1.ids import MAX_ID, NUMBER
from fma_api.v1.pagination import LargePages
from fma_django.accounts.tokens import Limits, create_token, tokens_of
from fma_django.accounts.users import visible_users
from fma_django.models import ApiToken, FederatedModel
from fma_django.record.queries.visible import visible_to

OF_USER = OpenApiParameter(
    "user", int, description="A user whom the caller may change; by default the caller."
)


@extend_schema_view(
    list=extend_schema(summary="The tokens of a user, newest first; not the secrets", parameters=[OF_USER]),
    destroy=extend_schema(summary="Revoke a token: it is refused from now on"),
)
class TokenViewSet(
    AnnouncedBodies,
    mixins.ListModelMixin,
    mixins.DestroyModelMixin,
    viewsets.GenericViewSet[ApiToken],
):
    serializer_class = ApiTokenSerializer
    pagination_class = LargePages
    permission_classes = (IsUser,)
    is_of_accounts = True
    filter_backends = ()
    queryset = ApiToken.objects.order_by("-pk")
    lookup_value_regex = NUMBER

    def get_queryset(self) -> QuerySet[ApiToken]:
        by = cast("User", self.request.user)
        if "user" in self.request.query_params:
            return tokens_of(_user(self.request, by), by=by)
        return tokens_of(by, by=by)

    def get_object(self) -> ApiToken:
        by = cast("User", self.request.user)
        tokens = ApiToken.objects.filter(user__in=visible_users(by)).select_related("user")
        token = get_object_or_404(tokens, pk=self.kwargs["pk"])
        tokens_of(token.user, by=by)  # raises for a user whom the caller may not change
        return token

    @extend_schema(
        summary="Make a token of the caller", request=NewTokenSerializer, responses={201: MadeTokenSerializer}
    )
    def create(self, request: Request) -> Response:
        """The answer has the secret, which is shown only here. A token gives no token that reaches further or works
        longer than itself."""
        by = cast("User", request.user)
        serializer = NewTokenSerializer(
            data=request.data, context={"models": visible_to(by, FederatedModel.objects.all())}
        )
        serializer.is_valid(raise_exception=True)
        said = dict(serializer.validated_data)
        made, token = create_token(
            by,
            said.pop("name"),
            Limits(**said),
            asked_with=request.auth if isinstance(request.auth, ApiToken) else None,
        )
        answer = {**self.get_serializer(made).data, "token": token}
        return Response(answer, status=201, headers={"Cache-Control": "no-store"})


def _user(request: Request, by: User) -> User:
    asked = request.query_params["user"]
    if not (asked.isascii() and asked.isdecimal() and len(asked) < 20 and int(asked) <= MAX_ID):
        raise ValidationError({"user": ["A valid integer is required."]})
    user: User = get_object_or_404(visible_users(by), pk=int(asked))
    return user
