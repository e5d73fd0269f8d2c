"""Users, roles and organisations on the wire. Passwords come in and never go out."""

from typing import Any

from allauth.socialaccount.models import SocialAccount
from django.contrib.auth.models import Group, User
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from fma_api.v1.accounts.fields import LONGEST_ROLE, RoleField
from fma_api.v1.accounts.serializers import PlaceSerializer
from fma_api.v1.reports.serializers import StrictSerializer
from fma_django.accounts.roles import NAMES
from fma_django.accounts.sign_on import LONGEST_SUBJECT
from fma_django.models import Issuer, Membership, Organisation

MAX_ROLES = 64
MAX_PERMISSIONS = 1000


class UserSerializer(serializers.ModelSerializer[User]):
    is_owner = serializers.BooleanField(source="is_superuser")
    roles = serializers.SerializerMethodField(help_text="The roles for the whole installation, by name.")
    organisations = serializers.SerializerMethodField(help_text="Where the user belongs, and the role there.")

    class Meta:
        model = User
        fields = (
            "id",
            "username",
            "email",
            "is_active",
            "is_owner",
            "roles",
            "organisations",
            "last_login",
            "date_joined",
        )
        read_only_fields = fields

    def get_roles(self, user: User) -> list[str]:
        return sorted(role.name for role in user.groups.all())

    @extend_schema_field(PlaceSerializer(many=True))
    def get_organisations(self, user: Any) -> list[dict[str, Any]]:
        return [
            {
                "id": member.organisation_id,
                "name": member.organisation.name,
                "role": None if member.role is None else member.role.name,
            }
            for member in user.memberships.all()
        ]


class UserChangesSerializer(StrictSerializer):
    """Changes of a user."""

    email = serializers.EmailField(required=False, allow_blank=True, max_length=254)
    is_active = serializers.BooleanField(required=False, help_text="false refuses the user everywhere.")
    is_owner = serializers.BooleanField(required=False, help_text="Only an owner makes an owner.")
    roles = serializers.ListField(
        child=RoleField(), required=False, max_length=MAX_ROLES, help_text="All roles that the user has then."
    )
    password = serializers.CharField(
        required=False,
        allow_null=True,
        max_length=4096,
        trim_whitespace=False,
        help_text="null: the user can log in with an API token only.",
    )


class NewUserSerializer(UserChangesSerializer):
    """A new user. organisation and role: where the user belongs, and the role there."""

    username = serializers.CharField(max_length=150)
    is_active = None  # type: ignore[assignment]
    organisation = serializers.PrimaryKeyRelatedField(queryset=Organisation.objects.none(), required=False)
    role = RoleField(required=False, allow_null=True, help_text="The role in the organisation.")

    def get_fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = super().get_fields()
        organisations = self.context.get("organisations")
        if organisations is not None:
            fields["organisation"].queryset = organisations
        return fields

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "role" in attrs and "organisation" not in attrs:
            raise serializers.ValidationError(
                {"role": ["A role here is one in an organisation: name that, or use `roles`."]}
            )
        return attrs


class SignOnAccountSerializer(serializers.ModelSerializer[SocialAccount]):
    subject = serializers.CharField(source="uid", help_text="The `sub` by which the provider knows the user.")
    issuer = serializers.CharField(source="provider")
    created_on = serializers.DateTimeField(source="date_joined")

    class Meta:
        model = SocialAccount
        fields = ("id", "subject", "issuer", "created_on", "last_login")
        read_only_fields = fields


class NewSignOnAccountSerializer(StrictSerializer):
    """An account at the identity provider."""

    subject = serializers.CharField(
        max_length=LONGEST_SUBJECT, trim_whitespace=False, help_text="Its `sub` at FMA_OIDC_ISSUER."
    )


class RoleSerializer(serializers.ModelSerializer[Group]):
    permissions = serializers.SerializerMethodField(help_text="As Django writes them: app.codename.")
    is_preset = serializers.SerializerMethodField(help_text="Whether every installation has it.")
    num_users = serializers.IntegerField(help_text="Users who have it for the whole installation.")
    num_members = serializers.IntegerField(help_text="Members of organisations who have it there.")

    class Meta:
        model = Group
        fields = ("id", "name", "permissions", "is_preset", "num_users", "num_members")
        read_only_fields = fields

    def get_permissions(self, role: Group) -> list[str]:
        return sorted(f"{row.content_type.app_label}.{row.codename}" for row in role.permissions.all())

    def get_is_preset(self, role: Group) -> bool:
        return role.name in NAMES


class RoleChangesSerializer(StrictSerializer):
    """Changes of a role."""

    name = serializers.CharField(max_length=LONGEST_ROLE, required=False)
    permissions = serializers.ListField(
        child=serializers.CharField(max_length=255),
        required=False,
        max_length=MAX_PERMISSIONS,
        help_text="All permissions that the role has then, as Django writes them: app.codename.",
    )


class NewRoleSerializer(RoleChangesSerializer):
    """A new role."""

    name = serializers.CharField(max_length=LONGEST_ROLE)


class OrganisationSerializer(serializers.ModelSerializer[Organisation]):
    num_clients = serializers.IntegerField(read_only=True)
    num_members = serializers.IntegerField(read_only=True)

    class Meta:
        model = Organisation
        fields = ("id", "name", "num_clients", "num_members", "created_on")
        read_only_fields = ("created_on",)


class MemberSerializer(serializers.ModelSerializer[Membership]):
    username = serializers.CharField(source="user.username", read_only=True)
    role = serializers.CharField(source="role.name", allow_null=True, default=None)

    class Meta:
        model = Membership
        fields = ("user", "username", "role")
        read_only_fields = fields


class IssuerSerializer(serializers.ModelSerializer[Issuer]):
    fingerprint = serializers.CharField(read_only=True)

    class Meta:
        model = Issuer
        fields = ("id", "public_key", "fingerprint", "created_on", "expires_on", "revoked_on")
        read_only_fields = fields


class NewIssuerSerializer(StrictSerializer):
    """A key with which an organisation signs the keys of its clients."""

    public_key = serializers.CharField(help_text="Ed25519, in 64 hexadecimal digits.")
    expires_on = serializers.DateTimeField(
        required=False, allow_null=True, help_text="By default it does not expire."
    )


class NewMemberSerializer(StrictSerializer):
    """A user of the organisation; the role of one who belongs to it already is replaced."""

    username = serializers.CharField(max_length=150)
    role = RoleField(allow_null=True, required=False, default=None)
