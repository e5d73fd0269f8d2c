"""The reports of a client on itself, field by field. Any other field is refused, so that nothing personal
gets into the record: there is no field for a name, an address, a user or a path, and the words are short.
"""

import sys
from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from fma_api.v1.ids import MAX_ID
from fma_api.v1.unknown_names import refuse_unknown
from fma_django.models import ClientError, ClientTelemetry
from fma_django.models.client_error import LONGEST_MESSAGE, LONGEST_TRACEBACK
from fma_django.models.client_telemetry import LONGEST_WORD, MAX_BYTES, DeviceKind

MAX_CPUS = 65536
LARGEST_FLOAT = sys.float_info.max
WORDS = rf"^[A-Za-z0-9][A-Za-z0-9 ._+()-]{{0,{LONGEST_WORD - 1}}}\Z"
VERSION = r"^[0-9][A-Za-z0-9.+-]{0,31}\Z"
CODE = r"^[A-Za-z0-9_.-]{1,64}\Z"


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses members that it does not know."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            refuse_unknown(data, self.fields, says="There is no {!r} here", otherwise=".")
        return super().to_internal_value(data)


class Number(serializers.FloatField):
    """A finite JSON number; "nan" and true are none."""

    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, (int, float)) or not abs(data) <= LARGEST_FLOAT:
            self.fail("invalid")
        return float(data)


def words(**options: Any) -> serializers.RegexField:
    rule = f"Up to {LONGEST_WORD} letters, digits, spaces and the signs . _ + ( ) -"
    return serializers.RegexField(
        WORDS, required=False, allow_blank=True, error_messages={"invalid": rule}, **options
    )


def version(**options: Any) -> serializers.RegexField:
    rule = "A version begins with a digit and has up to 32 letters, digits and the signs . + -"
    return serializers.RegexField(
        VERSION, required=False, allow_blank=True, error_messages={"invalid": rule}, **options
    )


def whole(most: int, **options: Any) -> serializers.IntegerField:
    return serializers.IntegerField(min_value=0, max_value=most, required=False, allow_null=True, **options)


def number(most: float, **options: Any) -> serializers.FloatField:
    return Number(min_value=0, max_value=most, required=False, allow_null=True, **options)


def truth(**options: Any) -> serializers.BooleanField:
    return serializers.BooleanField(required=False, allow_null=True, **options)


class DeviceSerializer(StrictSerializer):
    kind = serializers.ChoiceField(
        choices=DeviceKind.choices, source="device_kind", required=False, allow_blank=True
    )
    machine = words(help_text="The processor's architecture, such as x86_64.")
    accelerator = words(help_text="The kind of GPU or NPU, such as A100.")


class SystemSerializer(StrictSerializer):
    name = words(source="system", help_text="Linux, Darwin, Windows, Android.")
    version = version(source="system_version", help_text="Without a vendor's suffix: 6.8.")


class ResourcesSerializer(StrictSerializer):
    num_cpus = whole(MAX_CPUS, help_text="Cores that this process may use.")
    memory_bytes = whole(MAX_BYTES)
    free_memory_bytes = whole(MAX_BYTES)
    free_disk_bytes = whole(MAX_BYTES, help_text="The free bytes of the disk that the process runs on.")
    load = number(1e6, help_text="Processes that want to run, a minute's average.")
    battery = number(1.0, help_text="The share that is left, 0 to 1.")
    is_charging = truth()


class ConnectivitySerializer(StrictSerializer):
    is_unmetered = truth(help_text="Whether traffic costs nothing.")
    ping_ms = number(3.6e6, help_text="The least of some round trips to this server.")
    download_mbps = number(1e6, help_text="Megabits a second from this server.")
    upload_mbps = number(1e6, help_text="Megabits a second to this server.")


class VersionsSerializer(StrictSerializer):
    client = version(source="client_version", help_text="The version of fma_connect.")
    python = version(source="python_version")
    numpy = version(source="numpy_version")
    framework = words(help_text="Name and version, such as torch 2.13.0.")


class TelemetrySerializer(StrictSerializer):
    """A report of a client on itself. Every member may be left out."""

    device = DeviceSerializer(source="*", required=False)
    system = SystemSerializer(source="*", required=False)
    resources = ResourcesSerializer(source="*", required=False)
    connectivity = ConnectivitySerializer(source="*", required=False)
    versions = VersionsSerializer(source="*", required=False)


class StoredTelemetrySerializer(TelemetrySerializer):
    id = serializers.IntegerField(read_only=True)
    client = serializers.UUIDField(source="client_id", read_only=True)
    created_on = serializers.DateTimeField(read_only=True)

    class Meta:
        model = ClientTelemetry


class NewErrorSerializer(StrictSerializer):
    """Something that went wrong on a client."""

    code = serializers.RegexField(
        CODE,
        help_text="Stable, for programs: out_of_memory.",
        error_messages={"invalid": "1 to 64 letters, digits and the signs _ . -"},
    )
    message = serializers.CharField(max_length=LONGEST_MESSAGE, required=False, allow_blank=True)
    federated_model = serializers.IntegerField(
        min_value=1,
        max_value=MAX_ID,
        required=False,
        allow_null=True,
        help_text="The model that it was training.",
    )
    round = serializers.IntegerField(
        min_value=1, max_value=2**31 - 1, required=False, allow_null=True, help_text="Its number."
    )
    traceback = serializers.CharField(
        max_length=LONGEST_TRACEBACK,
        required=False,
        allow_blank=True,
        trim_whitespace=False,
        help_text="Only when the client's user wants it: it may name files.",
    )


class ClientErrorSerializer(serializers.ModelSerializer[ClientError]):
    round = serializers.IntegerField(source="round_number", allow_null=True)

    class Meta:
        model = ClientError
        fields = ("id", "client", "federated_model", "round", "code", "message", "traceback", "created_on")
        read_only_fields = fields


class SpeedTestSerializer(serializers.Serializer[Any]):
    """The number of bytes of a body that arrived."""

    size_bytes = serializers.IntegerField()
