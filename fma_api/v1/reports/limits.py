"""Limits of the reports and speed tests of one client: counted where every process of the server sees it."""

from datetime import timedelta
from typing import Any, ClassVar

from django.db import models
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle, SimpleRateThrottle

from fma_api.v1.callers import client_of
from fma_django.models import ClientError, ClientTelemetry

AN_HOUR = timedelta(hours=1)


class _PerHour(BaseThrottle):
    """At most `most` rows of `kind` in any hour of a client."""

    kind: ClassVar[type[models.Model]]
    most: ClassVar[int]
    wait_s: float | None = None

    def allow_request(self, request: Request, view: Any) -> bool:
        client = client_of(request)
        if client is None:
            return True
        now = timezone.now()
        sent = self.kind._default_manager.filter(client=client, created_on__gt=now - AN_HOUR)
        last = sent.order_by("-created_on").values_list("created_on", flat=True)[self.most - 1 : self.most]
        for moment in last:
            self.wait_s = (moment + AN_HOUR - now).total_seconds()
        return self.wait_s is None

    def wait(self) -> float | None:
        return self.wait_s


class TelemetryPerHour(_PerHour):
    kind = ClientTelemetry
    most = 60


class ErrorsPerHour(_PerHour):
    kind = ClientError
    most = 60


class SpeedTestsPerHour(SimpleRateThrottle):
    """Counted by each process unless FMA_BROKER_URL is set, as log-ins are: nothing of it is kept."""

    scope = "speed_test"
    rate = "120/hour"

    def get_cache_key(self, request: Request, view: Any) -> str:
        return f"speed_test_{request.user.pk}"
