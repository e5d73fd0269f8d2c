"""The settings of the record: their types, and the values that hold when a Django project says nothing.

Each is a Django setting under a longer name: `lease_s` is read from `FMA_LEASE_SECONDS = 30`. `fma_api.environment`
takes types and defaults from here, documents them, and reads them from the environment.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal

from django.conf import settings
from django.core.signals import setting_changed

SizeBytes = Annotated[int, "written with its unit, as in 64 MiB"]

Network = IPv4Network | IPv6Network

Rate = tuple[int, int]
"""How many in how many seconds."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The value of every setting of the record."""

    broker_url: str = ""
    s3_presigned_s: int = 0

    registration: Literal["open", "token", "approval", "jwt", "closed"] = "open"
    enrolment_token: str = ""
    registration_rate: Rate = (60, 60)
    max_clients_per_model: int = 0
    approval_days: int = 30
    jwks: str = ""
    jwt_issuer: str = ""
    jwt_audience: str = ""
    jwt_organisation_claim: str = "organisation"
    jwt_tags_claim: str = "tags"
    outgoing_hosts: tuple[str, ...] = ("*",)
    outgoing_networks: tuple[Network, ...] = ()
    signed_updates: Literal["off", "known_keys", "required"] = "off"
    evaluation_min_contributors: int = 3
    evaluation_refuse_isolation: bool = True

    login_rate: Rate = (30, 60)
    max_update_bytes: SizeBytes = 2 * 2**30
    max_json_bytes: SizeBytes = 64 * 2**20
    json_memory_bytes: SizeBytes = 1280 * 2**20
    max_arrays: int = 100_000
    client_update_rate: Rate | None = None
    client_byte_rate: Rate | None = None
    model_update_rate: Rate | None = None
    model_byte_rate: Rate | None = None
    max_uploads: int = 8
    max_uploading_bytes: SizeBytes = 8 * 2**30
    upload_s: int = 86_400

    lease_s: float = 60.0
    max_attempts: int = 3
    aggregation_timeout_s: int = 3600
    orphan_grace_s: float = 3600.0
    executor: Literal["threads", "serial", "dask"] = "threads"
    threads: int = 0
    dask_scheduler: str = ""
    dask_tls_ca: Path | None = None
    dask_tls_certificate: Path | None = None
    dask_tls_key: Path | None = None

    telemetry_days: int = 14
    mlflow_tracking_uri: str = ""
    tensorboard_dir: Path | None = None

    worker_seen_s: float = 15.0
    max_wait_s: float = 60.0


DASK_TLS = ("FMA_DASK_TLS_CA", "FMA_DASK_TLS_CERTIFICATE", "FMA_DASK_TLS_KEY")


def jwt_problems(values: Mapping[str, object]) -> list[str]:
    """The reasons why these values, by their Django names, do not say whose JWT enrols a client."""
    return [
        f"FMA_REGISTRATION is 'jwt', so {name} must be set; it is not"
        for name in ("FMA_JWKS", "FMA_JWT_ISSUER", "FMA_JWT_AUDIENCE")
        if not values[name]
    ]


def dask_problems(values: Mapping[str, object]) -> list[str]:
    """The reasons why these values, by their Django names, do not lead to a Dask cluster."""
    scheduler = str(values["FMA_DASK_SCHEDULER"])
    if not scheduler:
        return ["FMA_EXECUTOR is 'dask', so FMA_DASK_SCHEDULER must be set; it is not"]
    given = [name for name in DASK_TLS if values[name]]
    missing = [name for name in DASK_TLS if not values[name]]
    if scheduler.startswith("tls://"):
        return [
            f"FMA_DASK_SCHEDULER begins with tls://, so {name} must be set; it is not" for name in missing
        ]
    return [
        f"{name} is set, so FMA_DASK_SCHEDULER must begin with tls://; found '{scheduler}'" for name in given
    ]


def _django_name(field: str) -> str:
    return f"FMA_{re.sub('_s$', '_seconds', field).upper()}"


FIELDS: Mapping[str, str] = {_django_name(field.name): field.name for field in fields(Settings)}
"""The field of `Settings` for each name of a Django setting."""


@cache
def current() -> Settings:
    """The settings of this process. Kept until Django announces that one was changed, as tests do."""
    given = {field: getattr(settings, name) for name, field in FIELDS.items() if hasattr(settings, name)}
    return Settings(**given)


def _forget_current(*, setting: str, **_: object) -> None:
    if setting in FIELDS:
        current.cache_clear()


setting_changed.connect(_forget_current, dispatch_uid="fma_django.conf.forget_current")
