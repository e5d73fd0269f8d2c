"""The address that the server listens on."""

import errno
import socket

from fma_api.cli.problem import Problem


def check_free(host: str, port: int) -> str:
    """The IP address of the host, which may be a name or an IPv6 address in brackets; IPv4 where it has both.

    Raises Problem when the server cannot listen there. granian shares its port among its workers (SO_REUSEPORT), so a
    second server on it would not fail: it would take half of the requests of the first.
    """
    try:
        candidates = socket.getaddrinfo(
            _without_brackets(host), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _name, address = min(candidates, key=lambda found: found[0] != socket.AF_INET)
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise Problem(f"port {port} of {host} is in use; choose another with --port") from error
        reason = getattr(error, "strerror", None) or error
        raise Problem(f"cannot listen on {host} port {port}: {reason}") from error
    return str(address[0])


def url(host: str, port: int) -> str:
    """The address as a person would type it on this machine."""
    host = _without_brackets(host)
    if host in ("0.0.0.0", "0", "*"):  # noqa: S104
        host = "127.0.0.1"
    elif host == "::":
        host = "::1"
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"


def _without_brackets(host: str) -> str:
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host
