"""A client's report on itself at one time: its device, free resources, connection and versions."""

from django.db import models
from django.db.models import Q

LONGEST_WORD = 64
MAX_BYTES = 2**50  # a pebibyte: what is above is a mistake


class DeviceKind(models.TextChoices):
    SERVER = "server"
    DESKTOP = "desktop"
    LAPTOP = "laptop"
    PHONE = "phone"
    TABLET = "tablet"
    EMBEDDED = "embedded"
    OTHER = "other"


def _between(name: str, least: float, most: float) -> models.CheckConstraint:
    holds = Q(**{f"{name}__gte": least, f"{name}__lte": most})
    return models.CheckConstraint(
        name=f"telemetry_{name}_in_range", condition=Q(**{f"{name}__isnull": True}) | holds
    )


class ClientTelemetry(models.Model):
    """One report. Whatever a client does not know, or does not say, is null or "".

    There is no column for anything that names a person, a machine or an address, and none for free text.
    """

    client = models.ForeignKey("Client", on_delete=models.CASCADE, related_name="telemetry")
    device_kind = models.CharField(max_length=8, choices=DeviceKind.choices, blank=True)
    machine = models.CharField(max_length=LONGEST_WORD, blank=True, help_text="The processor's architecture.")
    accelerator = models.CharField(max_length=LONGEST_WORD, blank=True, help_text="The kind of GPU, say.")
    system = models.CharField(max_length=LONGEST_WORD, blank=True)
    system_version = models.CharField(max_length=LONGEST_WORD, blank=True)
    num_cpus = models.PositiveIntegerField(null=True, blank=True)
    memory_bytes = models.PositiveBigIntegerField(null=True, blank=True)
    free_memory_bytes = models.PositiveBigIntegerField(null=True, blank=True)
    free_disk_bytes = models.PositiveBigIntegerField(null=True, blank=True)
    load = models.FloatField(
        null=True, blank=True, help_text="Processes that want to run, a minute's average."
    )
    battery = models.FloatField(null=True, blank=True, help_text="The share that is left, 0 to 1.")
    is_charging = models.BooleanField(null=True, blank=True)
    is_unmetered = models.BooleanField(null=True, blank=True)
    ping_ms = models.FloatField(null=True, blank=True)
    download_mbps = models.FloatField(null=True, blank=True)
    upload_mbps = models.FloatField(null=True, blank=True)
    client_version = models.CharField(max_length=LONGEST_WORD, blank=True)
    python_version = models.CharField(max_length=LONGEST_WORD, blank=True)
    numpy_version = models.CharField(max_length=LONGEST_WORD, blank=True)
    framework = models.CharField(max_length=LONGEST_WORD, blank=True)
    created_on = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        ordering = ("-id",)
        verbose_name = "telemetry"
        verbose_name_plural = "telemetry"
        constraints = [
            _between("battery", 0, 1),
            _between("load", 0, 1e6),
            _between("ping_ms", 0, 3.6e6),
            _between("download_mbps", 0, 1e6),
            _between("upload_mbps", 0, 1e6),
            _between("memory_bytes", 0, MAX_BYTES),
            _between("free_memory_bytes", 0, MAX_BYTES),
            _between("free_disk_bytes", 0, MAX_BYTES),
        ]
        indexes = [models.Index(fields=("client", "-created_on"), name="telemetry_newest_of_client")]

    def __str__(self) -> str:
        return f"telemetry {self.pk}"
