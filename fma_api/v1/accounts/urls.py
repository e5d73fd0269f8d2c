"""The routes of the caller, of tokens, users, roles and organisations.

Logging in is outside of `/api/v1/`: see fma_api/urls.py.
"""

from django.urls import path
from rest_framework.routers import SimpleRouter

from fma_api.v1.accounts.me import MeView
from fma_api.v1.accounts.organisations import OrganisationViewSet
from fma_api.v1.accounts.roles import RoleViewSet
from fma_api.v1.accounts.tokens import TokenViewSet
from fma_api.v1.accounts.users import UserViewSet

router = SimpleRouter()
router.register("tokens", TokenViewSet, basename="token")
router.register("users", UserViewSet, basename="user")
router.register("roles", RoleViewSet, basename="role")
router.register("organisations", OrganisationViewSet, basename="organisation")

urlpatterns = [path("me/", MeView.as_view(), name="me"), *router.urls]
