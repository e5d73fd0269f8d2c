"""System checks of a deployment, for `fma manage check --deploy`."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Warning


def check_deployment(app_configs: Any, **_kwargs: Any) -> list[CheckMessage]:
    """Warn of each setting that a server for strangers should not have."""
    warnings: list[CheckMessage] = []
    if settings.FMA_REGISTRATION == "open":
        warnings.append(
            Warning(
                "FMA_REGISTRATION is open: whoever reaches the server can become a client of any model",
                hint="Set FMA_REGISTRATION to token, jwt or closed (docs/how-to/close-registration.md).",
                id="fma.W003",
            )
        )
    if "*" in settings.ALLOWED_HOSTS:
        warnings.append(
            Warning(
                "FMA_ALLOWED_HOSTS has *: links and redirects lead to whatever host a request names, and proofs of "
                "clients' keys count for it",
                hint="Name the hosts, such as fma.example.org.",
                id="fma.W004",
            )
        )
    if settings.FMA_HTTPS and not settings.FMA_TRUST_PROXY:
        warnings.append(
            Warning(
                "FMA_HTTPS is set and FMA_TRUST_PROXY is not: fma web speaks HTTP alone, and would redirect for ever",
                hint="Put a proxy that speaks HTTPS in front and set FMA_TRUST_PROXY=true.",
                id="fma.W005",
            )
        )
    if settings.FMA_TRUST_PROXY and not settings.FMA_HTTPS:
        warnings.append(
            Warning(
                "FMA_TRUST_PROXY is set and FMA_HTTPS is not: what comes to the proxy by plain HTTP is answered",
                hint="Set FMA_HTTPS=true when the proxy speaks HTTPS.",
                id="fma.W006",
            )
        )
    if settings.FMA_HTTPS and (
        plain := [origin for origin in settings.CSRF_TRUSTED_ORIGINS if origin.startswith("http://")]
    ):
        warnings.append(
            Warning(
                f"FMA_CSRF_TRUSTED_ORIGINS has {', '.join(plain)}: whoever listens in can write forms of a plain page",
                hint="Name the origins with https://.",
                id="fma.W007",
            )
        )
    return warnings
