"""The routes of version 1."""

from django.urls import path, re_path
from rest_framework.routers import SimpleRouter

from fma_api.v1.accounts.me import MeView
from fma_api.v1.aggregates.views import ModelAggregateViewSet
from fma_api.v1.algorithms.views import AlgorithmsView
from fma_api.v1.artifacts.views import ModelArtifactViewSet
from fma_api.v1.clients.views import UUID, ClientViewSet
from fma_api.v1.evaluations.views import EvaluationViewSet
from fma_api.v1.models.clients import ModelClientErrorsView, ModelParticipationView
from fma_api.v1.models.metrics import ModelMetricsView
from fma_api.v1.models.views import FederatedModelViewSet
from fma_api.v1.reports.own import OwnErrorsView, OwnTelemetryView, SpeedTestView
from fma_api.v1.reports.views import ClientErrorsView, ClientTelemetryView
from fma_api.v1.scores.views import ClientAggregateScoreViewSet
from fma_api.v1.updates.views import ModelUpdateViewSet
from fma_api.v1.uploads.views import UploadViewSet

router = SimpleRouter()
# What is asked for most is looked for first.
router.register("model_updates", ModelUpdateViewSet, basename="model_update")
router.register("models", FederatedModelViewSet, basename="model")
router.register("model_aggregates", ModelAggregateViewSet, basename="model_aggregate")
router.register("model_artifacts", ModelArtifactViewSet, basename="model_artifact")
router.register("client_aggregate_scores", ClientAggregateScoreViewSet, basename="client_aggregate_score")
router.register("evaluations", EvaluationViewSet, basename="evaluation")
router.register("clients", ClientViewSet, basename="client")
router.register("uploads", UploadViewSet, basename="upload")

CLIENT = rf"^clients/(?P<pk>{UUID})"
MODEL = r"^models/(?P<pk>\d{1,18})"

urlpatterns = [
    *router.urls,
    path("me/", MeView.as_view(), name="me"),
    path("algorithms/", AlgorithmsView.as_view(), name="algorithms"),
    path("clients/me/telemetry/", OwnTelemetryView.as_view(), name="own-telemetry"),
    path("clients/me/errors/", OwnErrorsView.as_view(), name="own-errors"),
    path("clients/me/speed-test/", SpeedTestView.as_view(), name="speed-test"),
    re_path(rf"{CLIENT}/telemetry/$", ClientTelemetryView.as_view(), name="client-telemetry"),
    re_path(rf"{CLIENT}/errors/$", ClientErrorsView.as_view(), name="client-errors"),
    re_path(rf"{MODEL}/metrics/$", ModelMetricsView.as_view(), name="model-metrics"),
    re_path(rf"{MODEL}/participation/$", ModelParticipationView.as_view(), name="model-participation"),
    re_path(rf"{MODEL}/client_errors/$", ModelClientErrorsView.as_view(), name="model-client-errors"),
]
