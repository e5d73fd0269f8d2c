"""The routes of reports, below `clients/`."""

from django.urls import path, re_path

from fma_api.v1.ids import UUID
from fma_api.v1.reports.own import OwnErrorsView, OwnTelemetryView, SpeedTestView
from fma_api.v1.reports.views import ClientErrorsView, ClientTelemetryView

CLIENT = rf"^clients/(?P<pk>{UUID})"

urlpatterns = [
    path("clients/me/telemetry/", OwnTelemetryView.as_view(), name="own-telemetry"),
    path("clients/me/errors/", OwnErrorsView.as_view(), name="own-errors"),
    path("clients/me/speed-test/", SpeedTestView.as_view(), name="speed-test"),
    re_path(rf"{CLIENT}/telemetry/$", ClientTelemetryView.as_view(), name="client-telemetry"),
    re_path(rf"{CLIENT}/errors/$", ClientErrorsView.as_view(), name="client-errors"),
]
