"""The routes of `evaluations/`."""

from rest_framework.routers import SimpleRouter

from fma_api.v1.evaluations.views import EvaluationViewSet

router = SimpleRouter()
router.register("evaluations", EvaluationViewSet, basename="evaluation")

urlpatterns = router.urls
