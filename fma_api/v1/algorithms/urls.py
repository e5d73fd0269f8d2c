"""The route of the catalogue of parts."""

from django.urls import path

from fma_api.v1.algorithms.views import AlgorithmsView

urlpatterns = [path("algorithms/", AlgorithmsView.as_view(), name="algorithms")]
