"""The routes of `model_aggregates/`."""

from rest_framework.routers import SimpleRouter

from fma_api.v1.aggregates.views import ModelAggregateViewSet

router = SimpleRouter()
router.register("model_aggregates", ModelAggregateViewSet, basename="model_aggregate")

urlpatterns = router.urls
