"""`organisations/`: the owners of clients, and the users who belong to them."""

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import django_filters
from django.contrib.auth.models import User
from django.db.models import OuterRef, QuerySet
from django_filters.rest_framework import FilterSet
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import viewsets
from rest_framework.decorators import action
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response

from fma_api.v1.accounts.user_serializers import (
    IssuerSerializer,
    MemberSerializer,
    NewIssuerSerializer,
    NewMemberSerializer,
    OrganisationSerializer,
)
from fma_api.v1.announced_bodies import AnnouncedBodies
from fma_api.v1.callers import Permitted
from fma_api.v1.filters import LIST_FILTERS
from fma_api.v1.ids import NUMBER
from fma_api.v1.pagination import LargePages
from fma_django.accounts.grants import may
from fma_django.accounts.users import (
    create_organisation,
    remove_member,
    set_member,
    unknown_user,
    visible_organisations,
)
from fma_django.clients.issuers import CHANGE_ORGANISATION, add_issuer, revoke_issuer
from fma_django.errors import NotPermitted
from fma_django.models import Client, Issuer, Membership, Organisation
from fma_django.record.queries.row_count import row_count


class OrganisationFilters(FilterSet):
    name = django_filters.CharFilter(lookup_expr="iexact", max_length=255)

    class Meta:
        model = Organisation
        fields = ("name",)


@extend_schema_view(
    list=extend_schema(
        summary="The organisations that the caller belongs to; all of them for who may view them"
    ),
    create=extend_schema(summary="Make an organisation"),
    retrieve=extend_schema(summary="One organisation"),
    partial_update=extend_schema(
        summary="Rename an organisation; needs the permission for all of them, as clients claim names"
    ),
    destroy=extend_schema(summary="Remove an organisation; its clients stay, and belong to none"),
)
class OrganisationViewSet(AnnouncedBodies, viewsets.ModelViewSet[Organisation]):
    http_method_names = ("get", "head", "options", "post", "patch", "delete")
    serializer_class = OrganisationSerializer
    pagination_class = LargePages
    permission_classes = (Permitted,)
    is_of_accounts = True
    permission_of: ClassVar[Mapping[str, str]] = {
        "create": "fma_django.add_organisation",
        "partial_update": "fma_django.change_organisation",
        "destroy": "fma_django.delete_organisation",
        "members": "fma_django.view_membership",
        "set_member": "fma_django.add_membership",
        "remove_member": "fma_django.delete_membership",
        "add_issuer": CHANGE_ORGANISATION,
        "revoke_issuer": CHANGE_ORGANISATION,
    }
    filter_backends = LIST_FILTERS
    filterset_class = OrganisationFilters
    ordering_fields = ("name", "created_on")
    queryset = Organisation.objects.order_by("pk")
    lookup_value_regex = NUMBER

    def get_queryset(self) -> QuerySet[Any]:
        clients = Client.objects.filter(organisation=OuterRef("pk"))
        members = Membership.objects.filter(organisation=OuterRef("pk"))
        return (
            visible_organisations(self.request.user)
            .order_by("pk")
            .annotate(
                num_clients=row_count(clients, "organisation"), num_members=row_count(members, "organisation")
            )
        )

    def check_object_permissions(self, request: Request, obj: Organisation) -> None:
        super().check_object_permissions(request, obj)
        permission = self.permission_of.get(self.action)
        # Whoever has a name gets the clients that claim it, in a JWT or while they await approval.
        place = None if self.action == "partial_update" else obj
        if permission is not None and not may(request.user, permission, place):
            raise NotPermitted(f"this needs the permission {permission}", permission=permission)

    def perform_create(self, serializer: Any) -> None:
        name = serializer.validated_data["name"]
        serializer.instance = create_organisation(name, by=cast("User", self.request.user))
        serializer.instance.num_clients = serializer.instance.num_members = 0

    @extend_schema(
        summary="The members of an organisation, with their roles there",
        responses=MemberSerializer(many=True),
        filters=False,
    )
    @action(methods=["get"], detail=True, filter_backends=[])
    def members(self, request: Request, pk: str) -> Response:
        rows = Membership.objects.filter(organisation=self.get_object()).select_related("user", "role")
        page: Any = self.paginate_queryset(rows.order_by("pk"))  # type: ignore[arg-type]
        return self.get_paginated_response(MemberSerializer(page, many=True).data)

    @extend_schema(
        summary="Let a user belong to the organisation, with a role",
        request=NewMemberSerializer,
        responses=MemberSerializer,
    )
    @members.mapping.post
    def set_member(self, request: Request, pk: str) -> Response:
        """Replaces the role of one who belongs to it. 403 for a role with more than the caller holds there.

        400 for a user whom the caller does not see in `users/`.
        """
        organisation = self.get_object()
        serializer = NewMemberSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        username = serializer.validated_data["username"]
        user = User.objects.filter(username=username).first() if "\x00" not in username else None
        if user is None:
            raise unknown_user(username)
        member = set_member(
            organisation, user, serializer.validated_data["role"], by=cast("User", request.user)
        )
        return Response(MemberSerializer(member).data)

    @extend_schema(summary="Let a user belong to the organisation no longer", responses={204: None})
    @action(methods=["delete"], detail=True, url_path=rf"members/(?P<user>{NUMBER})", filter_backends=[])
    def remove_member(self, request: Request, pk: str, user: str) -> Response:
        rows = Membership.objects.filter(organisation=self.get_object()).select_related(
            "role", "organisation"
        )
        remove_member(get_object_or_404(rows, user=int(user)), by=cast("User", request.user))
        return Response(status=204)

    @extend_schema(
        summary="The keys with which an organisation signs those of its clients",
        responses=IssuerSerializer(many=True),
        filters=False,
    )
    @action(methods=["get"], detail=True, filter_backends=[])
    def issuers(self, request: Request, pk: str) -> Response:
        rows = Issuer.objects.filter(organisation=self.get_object())
        page: Any = self.paginate_queryset(rows.order_by("pk"))  # type: ignore[arg-type]
        return self.get_paginated_response(IssuerSerializer(page, many=True).data)

    @extend_schema(
        summary="Trust a key of the organisation",
        request=NewIssuerSerializer,
        responses={201: IssuerSerializer},
    )
    @issuers.mapping.post
    def add_issuer(self, request: Request, pk: str) -> Response:
        """An organisation may have several, so that it can begin with a new key before the old one ends."""
        organisation = self.get_object()
        serializer = NewIssuerSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        issuer = add_issuer(organisation, **serializer.validated_data, by=cast("User", request.user))
        return Response(IssuerSerializer(issuer).data, status=201)

    @extend_schema(summary="Revoke a key of the organisation, for good", responses={204: None})
    @action(methods=["delete"], detail=True, url_path=rf"issuers/(?P<issuer>{NUMBER})", filter_backends=[])
    def revoke_issuer(self, request: Request, pk: str, issuer: str) -> Response:
        """Certificates that it has signed count for nothing from then on; it stays in the list."""
        rows = Issuer.objects.filter(organisation=self.get_object()).select_related("organisation")
        revoke_issuer(get_object_or_404(rows, pk=int(issuer)), by=cast("User", request.user))
        return Response(status=204)
