"""`roles/`: named sets of permissions."""

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import django_filters
from django.contrib.auth.models import Group, User
from django.db.models import OuterRef, QuerySet
from django_filters.rest_framework import FilterSet
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from fma_api.v1.accounts.user_serializers import NewRoleSerializer, RoleChangesSerializer, RoleSerializer
from fma_api.v1.announced_bodies import AnnouncedBodies
from fma_api.v1.callers import Permitted
from fma_api.v1.filters import LIST_FILTERS
from fma_api.v1.ids import NUMBER
from fma_api.v1.pagination import LargePages
from fma_django.accounts.users import change_role, create_role, delete_role
from fma_django.models import Membership
from fma_django.record.queries.row_count import row_count

VIEW = "auth.view_group"


class RoleFilters(FilterSet):
    name = django_filters.CharFilter(lookup_expr="iexact", max_length=150)

    class Meta:
        model = Group
        fields = ("name",)


@extend_schema_view(
    list=extend_schema(summary="The roles of the installation"),
    retrieve=extend_schema(summary="One role with its permissions"),
    destroy=extend_schema(summary="Remove a role that is no preset"),
)
class RoleViewSet(
    AnnouncedBodies,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    mixins.DestroyModelMixin,
    viewsets.GenericViewSet[Group],
):
    serializer_class = RoleSerializer
    pagination_class = LargePages
    permission_classes = (Permitted,)
    is_of_accounts = True
    permission_of: ClassVar[Mapping[str, str]] = {
        "list": VIEW,
        "retrieve": VIEW,
        "create": "auth.add_group",
        "partial_update": "auth.change_group",
        "destroy": "auth.delete_group",
    }
    filter_backends = LIST_FILTERS
    filterset_class = RoleFilters
    ordering_fields = ("name",)
    queryset = Group.objects.order_by("pk")
    lookup_value_regex = NUMBER

    def get_queryset(self) -> QuerySet[Any]:
        users = User.groups.through.objects.filter(group=OuterRef("pk"))
        members = Membership.objects.filter(role=OuterRef("pk"))
        return (
            Group.objects.order_by("pk")
            .prefetch_related("permissions__content_type")
            .annotate(num_users=row_count(users, "group"), num_members=row_count(members, "role"))
        )

    @extend_schema(summary="Make a role", request=NewRoleSerializer, responses={201: RoleSerializer})
    def create(self, request: Request) -> Response:
        """403 for a permission that the caller does not hold."""
        serializer = NewRoleSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        said = serializer.validated_data
        made = create_role(said["name"], said.get("permissions", ()), by=cast("User", request.user))
        return Response(self.get_serializer(self.get_queryset().get(pk=made.pk)).data, status=201)

    @extend_schema(summary="Change a role", request=RoleChangesSerializer, responses=RoleSerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        """Takes effect at once for everybody who has it. A preset keeps its name."""
        serializer = RoleChangesSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        change_role(self.get_object(), serializer.validated_data, by=cast("User", request.user))
        return Response(self.get_serializer(self.get_object()).data)

    def perform_destroy(self, instance: Group) -> None:
        delete_role(instance, by=cast("User", self.request.user))
