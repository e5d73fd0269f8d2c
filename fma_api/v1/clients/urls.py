"""The routes of `clients/`."""

from django.urls import path
from rest_framework.routers import SimpleRouter

from fma_api.v1.clients.credential import OwnCredentialView
from fma_api.v1.clients.key import OwnKeyView
from fma_api.v1.clients.views import ClientViewSet

router = SimpleRouter()
router.register("clients", ClientViewSet, basename="client")

urlpatterns = [
    path("clients/me/credential/", OwnCredentialView.as_view(), name="own-credential"),
    path("clients/me/key/", OwnKeyView.as_view(), name="own-key"),
    *router.urls,
]
