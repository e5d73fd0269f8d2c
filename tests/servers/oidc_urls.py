"""The routes and the claims of the provider of tests/servers/oidc_site.py."""

from typing import Any

from allauth.idp.oidc.adapter import DefaultOIDCAdapter
from django.contrib.auth.models import User
from django.urls import include, path


class Adapter(DefaultOIDCAdapter):  # type: ignore[misc]
    def get_claims(self, purpose: Any, user: User, *arguments: Any, **facts: Any) -> dict[str, Any]:
        claims: dict[str, Any] = super().get_claims(purpose, user, *arguments, **facts)
        return {**claims, "groups": sorted(user.groups.values_list("name", flat=True))}


urlpatterns = [path("", include("allauth.idp.urls")), path("accounts/", include("allauth.account.urls"))]
