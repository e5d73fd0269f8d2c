"""The routes of `clients/`."""

from rest_framework.routers import SimpleRouter

from fma_api.v1.clients.views import ClientViewSet

router = SimpleRouter()
router.register("clients", ClientViewSet, basename="client")

urlpatterns = router.urls
