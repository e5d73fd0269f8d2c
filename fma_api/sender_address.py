"""The network address of the sender of a request."""

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

import structlog
from django.conf import settings

log = structlog.get_logger(__name__)

MOST_WARNINGS = 10
"""The most addresses that are named in the life of a process: any scanner can say that it forwards."""
_warned: set[str] = set()


def sender_address(environ: Mapping[str, Any]) -> str:
    """The address of the connection, or, with FMA_TRUST_PROXY, the one that the proxy speaks for."""
    forwarded = environ.get("HTTP_X_FORWARDED_FOR", "")
    # Only a proxy of ours is believed, which adds whom it speaks for at the end.
    if not settings.FMA_TRUST_PROXY:
        if forwarded:
            _warn_of_proxy(str(environ.get("REMOTE_ADDR", "")))
        forwarded = ""
    return _without_port(forwarded.rpartition(",")[2].strip()) or str(environ.get("REMOTE_ADDR", ""))


def _warn_of_proxy(address: str) -> None:
    if address in _warned or len(_warned) == MOST_WARNINGS:
        return
    _warned.add(address)
    log.warning(
        "proxy_not_trusted",
        address=address,
        detail="a request says that it was forwarded: if this address is a proxy of yours, set FMA_TRUST_PROXY, "
        "or everybody behind it is one sender to the limits",
    )


def _without_port(address: str) -> str:
    """An address as some proxies write it: with the port of the connection, and IPv6 in brackets (RFC 7239, 6)."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    host, _, port = address.partition(":")
    return host if port.isdecimal() else address


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """The addresses that one sender has: of IPv6, the 2**64 of a network."""
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    if not isinstance(ip, IPv6Address):
        return str(ip)
    return str(ip.ipv4_mapped or ip_network((ip, 64), strict=False))
