"""What `manage.py check` says of a configuration that cannot work."""

from typing import Any

from django.core.checks import CheckMessage, Error, Warning, register

from fma_django import conf


@register()
def check_settings(app_configs: Any, **_kwargs: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    policy = conf.get("FMA_REGISTRATION")
    if policy not in ("open", "token", "closed"):
        found.append(Error(f"FMA_REGISTRATION is open, token or closed; found {policy!r}", id="fma.E001"))
    if policy == "token" and not conf.get("FMA_ENROLMENT_TOKEN"):
        found.append(Error("FMA_REGISTRATION=token needs FMA_ENROLMENT_TOKEN", id="fma.E002"))
    if conf.get("FMA_EXECUTOR") == "dask" and not conf.get("FMA_DASK_SCHEDULER"):
        found.append(Error("FMA_EXECUTOR=dask needs FMA_DASK_SCHEDULER", id="fma.E004"))
    found.extend(
        Error(f"{name} must be above 0; found {conf.get(name)}", id="fma.E003")
        for name in ("FMA_LEASE_SECONDS", "FMA_MAX_ATTEMPTS", "FMA_MAX_UPDATE_BYTES", "FMA_MAX_ARRAYS")
        if conf.get(name) <= 0
    )
    grace, limit = conf.get("FMA_ORPHAN_GRACE_SECONDS"), conf.get("FMA_AGGREGATION_TIMEOUT_SECONDS")
    if grace < limit:
        found.append(
            Warning(
                f"FMA_ORPHAN_GRACE_SECONDS ({grace}) is below FMA_AGGREGATION_TIMEOUT_SECONDS ({limit}): "
                "the sweep could remove the spooled updates of a round that is still being aggregated",
                id="fma.W001",
            )
        )
    return found
