"""`users/`: the people of the installation, as far as the caller's roles show them."""

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import django_filters
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth.models import User
from django.db.models import Prefetch, Q, QuerySet
from django_filters.rest_framework import FilterSet
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response

from fma_api.v1.accounts.user_serializers import (
    NewSignOnAccountSerializer,
    NewUserSerializer,
    SignOnAccountSerializer,
    UserChangesSerializer,
    UserSerializer,
)
from fma_api.v1.announced_bodies import AnnouncedBodies
from fma_api.v1.callers import Permitted
from fma_api.v1.filters import LIST_FILTERS, IdFilter
from fma_api.v1.ids import NUMBER
from fma_api.v1.pagination import LargePages
from fma_django.accounts import second_factor
from fma_django.accounts.sign_on import bind_account, unbind_account
from fma_django.accounts.users import (
    Place,
    change_user,
    create_user,
    delete_user,
    require_may_change,
    visible_organisations,
    visible_users,
)
from fma_django.models import Membership


class UserFilters(FilterSet):
    username = django_filters.CharFilter(lookup_expr="iexact", max_length=150)
    email = django_filters.CharFilter(lookup_expr="icontains", max_length=254, label="A part of the address.")
    role = django_filters.CharFilter(
        method="with_role", max_length=150, label="Has this role, for the whole or in an organisation."
    )
    organisation = IdFilter(method="in_organisation", label="Belongs to this organisation.")
    is_owner = django_filters.BooleanFilter(field_name="is_superuser")

    class Meta:
        model = User
        fields = ("username", "email", "role", "organisation", "is_active", "is_owner")

    def with_role(self, users: QuerySet[User], name: str, value: str) -> QuerySet[User]:
        everywhere = User.groups.through.objects.filter(group__name=value).values("user")
        somewhere = self._memberships().filter(role__name=value).values("user")
        return users.filter(Q(pk__in=everywhere) | Q(pk__in=somewhere))

    def in_organisation(self, users: QuerySet[User], name: str, value: int) -> QuerySet[User]:
        return users.filter(pk__in=self._memberships().filter(organisation=value).values("user"))

    def _memberships(self) -> QuerySet[Membership]:
        # Of an organisation that the caller does not see, nobody learns its members.
        return Membership.objects.filter(organisation__in=visible_organisations(self.request.user))


@extend_schema_view(
    list=extend_schema(summary="The users that the caller may see"),
    retrieve=extend_schema(summary="One user"),
    destroy=extend_schema(summary="Remove a user who owns no models"),
)
class UserViewSet(
    AnnouncedBodies,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    mixins.DestroyModelMixin,
    viewsets.GenericViewSet[User],
):
    serializer_class = UserSerializer
    pagination_class = LargePages
    permission_classes = (Permitted,)
    is_of_accounts = True
    permission_of: ClassVar[Mapping[str, str]] = {
        "create": "auth.add_user",
        "partial_update": "auth.change_user",
        "destroy": "auth.delete_user",
        "take_off_second_factor": "auth.change_user",
        "accounts": "auth.change_user",
        "bind_account": "auth.change_user",
        "unbind_account": "auth.change_user",
    }
    filter_backends = LIST_FILTERS
    filterset_class = UserFilters
    ordering_fields = ("username", "date_joined", "last_login")
    queryset = User.objects.order_by("-pk")
    lookup_value_regex = NUMBER

    def get_queryset(self) -> QuerySet[User]:
        seen = Membership.objects.filter(organisation__in=visible_organisations(self.request.user))
        places = seen.select_related("organisation", "role").order_by("organisation__name")
        users = visible_users(self.request.user).order_by("-pk")
        return users.prefetch_related("groups", Prefetch("memberships", places))

    @extend_schema(summary="Add a user", request=NewUserSerializer, responses={201: UserSerializer})
    def create(self, request: Request) -> Response:
        """Nobody gives more than they hold: each permission of a role must be one of the caller's own."""
        by = cast("User", request.user)
        serializer = NewUserSerializer(
            data=request.data, context={"organisations": visible_organisations(by)}
        )
        serializer.is_valid(raise_exception=True)
        said = dict(serializer.validated_data)
        organisation, role = said.pop("organisation", None), said.pop("role", None)
        place = None if organisation is None else Place(organisation, role)
        made = create_user(said.pop("username"), by=by, place=place, **said)
        return Response(self.get_serializer(made).data, status=201)

    @extend_schema(summary="Change a user", request=UserChangesSerializer, responses=UserSerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        """403 for a user who holds permissions that the caller does not; 409 for the only owner."""
        serializer = UserChangesSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        change_user(self.get_object(), serializer.validated_data, by=cast("User", request.user))
        return Response(self.get_serializer(self.get_object()).data)

    @extend_schema(
        summary="Take off the second factor of a user who lost it", request=None, responses={204: None}
    )
    @action(methods=["delete"], detail=True, url_path="second_factor", filter_backends=[])
    def take_off_second_factor(self, request: Request, pk: str) -> Response:
        """404 for a user without one. 403 for oneself: whoever has one's token could do so; a code turns it off."""
        if not second_factor.take_off(self.get_object(), by=cast("User", request.user)):
            raise NotFound("The user has no second factor.")
        return Response(status=204)

    @extend_schema(
        summary="The accounts at the identity provider that log in a user",
        responses=SignOnAccountSerializer(many=True),
        filters=False,
    )
    @action(methods=["get"], detail=True, filter_backends=[])
    def accounts(self, request: Request, pk: str) -> Response:
        user = self.get_object()
        require_may_change(cast("User", request.user), user)
        page: Any = self.paginate_queryset(SocialAccount.objects.filter(user=user).order_by("pk"))
        return self.get_paginated_response(SignOnAccountSerializer(page, many=True).data)

    @extend_schema(
        summary="Let an account at the identity provider log in a user",
        request=NewSignOnAccountSerializer,
        responses={201: SignOnAccountSerializer},
    )
    @accounts.mapping.post
    def bind_account(self, request: Request, pk: str) -> Response:
        """The account is one of FMA_OIDC_ISSUER; 409 for one of another user."""
        user = self.get_object()
        serializer = NewSignOnAccountSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        subject = serializer.validated_data["subject"]
        account = bind_account(user, subject, by=cast("User", request.user))
        return Response(SignOnAccountSerializer(account).data, status=201)

    @extend_schema(summary="Let an account log in a user no longer", responses={204: None})
    @action(methods=["delete"], detail=True, url_path=rf"accounts/(?P<account>{NUMBER})", filter_backends=[])
    def unbind_account(self, request: Request, pk: str, account: str) -> Response:
        """Sessions that it has begun end."""
        user = self.get_object()
        require_may_change(cast("User", request.user), user)  # before 404 tells which accounts there are
        rows = SocialAccount.objects.filter(user=user).select_related("user")
        unbind_account(get_object_or_404(rows, pk=int(account)), by=cast("User", request.user))
        return Response(status=204)

    def perform_destroy(self, instance: User) -> None:
        delete_user(instance, by=cast("User", self.request.user))
