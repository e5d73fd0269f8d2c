"""The route of the caller. Logging in is outside of `/api/v1/`: see fma_api/urls.py."""

from django.urls import path

from fma_api.v1.accounts.me import MeView

urlpatterns = [path("me/", MeView.as_view(), name="me")]
