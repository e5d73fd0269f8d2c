"""The routes of version 1."""

from django.urls import path
from rest_framework.routers import SimpleRouter

from fma_api.v1.me import MeView
from fma_api.v1.views.algorithms import AlgorithmsView
from fma_api.v1.views.client_aggregate_scores import ClientAggregateScoreViewSet
from fma_api.v1.views.evaluations import EvaluationViewSet
from fma_api.v1.views.federated_models import FederatedModelViewSet
from fma_api.v1.views.model_aggregates import ModelAggregateViewSet
from fma_api.v1.views.model_artifacts import ModelArtifactViewSet
from fma_api.v1.views.model_updates import ModelUpdateViewSet

router = SimpleRouter()
router.register("models", FederatedModelViewSet, basename="model")
router.register("model_updates", ModelUpdateViewSet, basename="model_update")
router.register("model_aggregates", ModelAggregateViewSet, basename="model_aggregate")
router.register("model_artifacts", ModelArtifactViewSet, basename="model_artifact")
router.register("client_aggregate_scores", ClientAggregateScoreViewSet, basename="client_aggregate_score")
router.register("evaluations", EvaluationViewSet, basename="evaluation")

urlpatterns = [
    path("me/", MeView.as_view(), name="me"),
    path("algorithms/", AlgorithmsView.as_view(), name="algorithms"),
    *router.urls,
]
