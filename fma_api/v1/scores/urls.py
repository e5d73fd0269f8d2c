"""The routes of `client_aggregate_scores/`."""

from rest_framework.routers import SimpleRouter

from fma_api.v1.scores.views import ClientAggregateScoreViewSet

router = SimpleRouter()
router.register("client_aggregate_scores", ClientAggregateScoreViewSet, basename="client_aggregate_score")

urlpatterns = router.urls
