"""The routes of `model_updates/`."""

from rest_framework.routers import SimpleRouter

from fma_api.v1.updates.views import ModelUpdateViewSet

router = SimpleRouter()
router.register("model_updates", ModelUpdateViewSet, basename="model_update")

urlpatterns = router.urls
