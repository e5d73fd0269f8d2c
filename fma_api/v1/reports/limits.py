"""Limits of the reports and speed tests of one client."""

from fma_api.v1.limits import PerHour


class TelemetryPerHour(PerHour):
    name = "telemetry"
    most = 60


class ErrorsPerHour(PerHour):
    name = "errors"
    most = 60


class SpeedTestsPerHour(PerHour):
    name = "speed_test"
    most = 120
