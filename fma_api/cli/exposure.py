"""Settings that are unsafe at the address which the HTTP server listens on."""

from ipaddress import ip_address

import structlog

from fma_api.cli.problem import Problem

OPEN_REGISTRATION = (
    "FMA_REGISTRATION is open: whoever reaches this address can become a client of any model, read its newest weights "
    "and send updates that count; see docs/how-to/close-registration.md"
)

log = structlog.get_logger(__name__)


def refuse_unsafe(ip: str) -> None:
    """Raises Problem for settings that would harm at once, or that could answer nobody."""
    from django.conf import settings

    if settings.DEBUG and not ip_address(ip).is_loopback:
        raise Problem(
            f"FMA_DEBUG shows settings and source code to whoever meets an error, and {ip} is open to others; listen "
            "on 127.0.0.1, or unset FMA_DEBUG"
        )
    if settings.FMA_HTTPS and not settings.FMA_TRUST_PROXY:
        raise Problem(
            "FMA_HTTPS redirects every plain request, and this server speaks HTTP alone: put a proxy that speaks HTTPS "
            "in front and set FMA_TRUST_PROXY=true, or unset FMA_HTTPS"
        )


def is_open_to_strangers(ip: str) -> bool:
    """Whether others than the users of this machine can register clients as they like."""
    from django.conf import settings

    return settings.FMA_REGISTRATION == "open" and not ip_address(ip).is_loopback


def warn(ip: str) -> None:
    if is_open_to_strangers(ip):
        log.warning("registration_is_open", ip=ip, detail=OPEN_REGISTRATION)
