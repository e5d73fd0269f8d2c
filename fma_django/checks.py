"""System checks: `manage.py check` refuses settings that cannot work and warns of unknown ones."""

from difflib import get_close_matches
from typing import Any, get_args, get_type_hints

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning

from fma_django import conf
from fma_django.storage import choose


def check_values(app_configs: Any, **_kwargs: Any) -> list[CheckMessage]:
    """Refuse values that cannot work."""
    messages: list[CheckMessage] = []
    now = conf.current()
    policies = get_args(get_type_hints(conf.Settings)["registration"])
    if now.registration not in policies:
        messages.append(
            Error(
                f"FMA_REGISTRATION is open, token, approval, jwt or closed; found {now.registration!r}",
                id="fma.E001",
            )
        )
    if now.registration == "token" and not now.enrolment_token:
        messages.append(Error("FMA_REGISTRATION=token needs FMA_ENROLMENT_TOKEN", id="fma.E002"))
    values = {name: getattr(now, field) for name, field in conf.FIELDS.items()}
    if now.registration == "jwt":
        messages.extend(Error(problem, id="fma.E005") for problem in conf.jwt_problems(values))
    if now.executor == "dask":
        messages.extend(Error(problem, id="fma.E004") for problem in conf.dask_problems(values))
    messages.extend(
        Error(f"{name} must be above 0; found {value}", id="fma.E003")
        for name, value in (
            ("FMA_LEASE_SECONDS", now.lease_s),
            ("FMA_MAX_ATTEMPTS", now.max_attempts),
            ("FMA_MAX_UPDATE_BYTES", now.max_update_bytes),
            ("FMA_MAX_ARRAYS", now.max_arrays),
        )
        if value <= 0
    )
    if now.orphan_grace_s < now.aggregation_timeout_s:
        messages.append(
            Warning(
                f"FMA_ORPHAN_GRACE_SECONDS ({now.orphan_grace_s}) is below FMA_AGGREGATION_TIMEOUT_SECONDS "
                f"({now.aggregation_timeout_s}): "
                "the sweep could remove the spooled updates of a round that is still being aggregated",
                id="fma.W001",
            )
        )
    return messages


def check_names(app_configs: Any, **_kwargs: Any) -> list[CheckMessage]:
    """Warn of each Django setting FMA_… that no installed application reads: a misspelt limit is no limit at all."""
    known = {*conf.FIELDS, *choose.SETTINGS}
    for application in apps.get_app_configs():
        known.update(getattr(application, "fma_settings", ()))
    return [
        Warning(
            f"{name} is not a setting of fma; the nearest one is {get_close_matches(name, known, n=1, cutoff=0.0)[0]}",
            id="fma.W002",
        )
        for name in dir(settings)
        if name.startswith("FMA_") and name not in known
    ]
