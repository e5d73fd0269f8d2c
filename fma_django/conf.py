"""The settings that the record reads, with the values that hold when a Django project says nothing.

Each is a Django setting of the same name (`FMA_LEASE_SECONDS = 30`); `fma_api.environment` documents them and reads
them from the environment.
"""

from collections.abc import Mapping
from typing import Any

from django.conf import settings

DEFAULTS: Mapping[str, Any] = {
    "FMA_MAX_UPDATE_BYTES": 2 * 2**30,
    "FMA_MAX_JSON_BYTES": 64 * 2**20,
    "FMA_MAX_ARRAYS": 100_000,
    "FMA_CLIENT_UPDATE_RATE": None,
    "FMA_CLIENT_BYTE_RATE": None,
    "FMA_MODEL_UPDATE_RATE": None,
    "FMA_MODEL_BYTE_RATE": None,
    "FMA_MAX_UPLOADS": 8,
    "FMA_MAX_UPLOADING_BYTES": 8 * 2**30,
    "FMA_UPLOAD_SECONDS": 86_400,
    "FMA_LEASE_SECONDS": 60,
    "FMA_MAX_ATTEMPTS": 3,
    "FMA_ORPHAN_GRACE_SECONDS": 3600,
    "FMA_AGGREGATION_TIMEOUT_SECONDS": 3600,
    "FMA_EXECUTOR": "threads",
    "FMA_THREADS": 0,
    "FMA_DASK_SCHEDULER": "",
    "FMA_REGISTRATION": "open",
    "FMA_ENROLMENT_TOKEN": "",
    "FMA_EVALUATION_MIN_CONTRIBUTORS": 3,
    "FMA_EVALUATION_REFUSE_ISOLATION": True,
    "FMA_BROKER_URL": "",
    "FMA_WORKER_SEEN_SECONDS": 15,
    "FMA_MAX_WAIT_SECONDS": 60,
    "FMA_S3_PRESIGNED_SECONDS": 0,
    "FMA_WEB_THREADS": 32,
    "FMA_TELEMETRY_DAYS": 14,
    "FMA_MLFLOW_TRACKING_URI": "",
    "FMA_TENSORBOARD_DIR": None,
}


def get(name: str) -> Any:
    """The value of a setting; KeyError for a name that is not in `DEFAULTS`."""
    default = DEFAULTS[name]
    return getattr(settings, name, default)
