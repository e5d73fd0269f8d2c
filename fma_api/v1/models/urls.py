"""The routes of `models/`."""

from django.urls import re_path
from rest_framework.routers import SimpleRouter

from fma_api.v1.ids import NUMBER
from fma_api.v1.models.clients import ModelClientErrorsView, ModelParticipationView
from fma_api.v1.models.metrics import ModelMetricsView
from fma_api.v1.models.views import FederatedModelViewSet

router = SimpleRouter()
router.register("models", FederatedModelViewSet, basename="model")

MODEL = rf"^models/(?P<pk>{NUMBER})"

urlpatterns = [
    *router.urls,
    re_path(rf"{MODEL}/metrics/$", ModelMetricsView.as_view(), name="model-metrics"),
    re_path(rf"{MODEL}/participation/$", ModelParticipationView.as_view(), name="model-participation"),
    re_path(rf"{MODEL}/client_errors/$", ModelClientErrorsView.as_view(), name="model-client-errors"),
]
