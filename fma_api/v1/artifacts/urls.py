"""The routes of `model_artifacts/`."""

from rest_framework.routers import SimpleRouter

from fma_api.v1.artifacts.views import ModelArtifactViewSet

router = SimpleRouter()
router.register("model_artifacts", ModelArtifactViewSet, basename="model_artifact")

urlpatterns = router.urls
