"""The proxies of the environment: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, as curl and others read them.

This machine itself is never asked through a proxy. NO_PROXY may have hosts, domains, addresses with or without a port,
and networks (10.0.0.0/8). A host name is never looked up for this.
"""

from __future__ import annotations

import ipaddress
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.request import getproxies

import httpx

from fma_connect.exceptions import ConnectionFailed

__all__ = ["EnvironmentProxies", "Proxies", "is_this_machine"]

PORTS = {"http": 80, "https": 443}
UNSPECIFIED = ("0.0.0.0", "::")  # noqa: S104 - nothing listens here

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Proxies:
    """The proxies of the environment, and the servers that are asked directly.

    by_scheme: URLs of proxies for "http", "https" and "all". exceptions: the members of NO_PROXY.
    """

    by_scheme: Mapping[str, str]
    exceptions: tuple[str, ...]

    @classmethod
    def of_environment(cls) -> Proxies:
        """Read the environment, or on macOS and Windows the settings of the system."""
        found = getproxies()
        exceptions = found.pop("no", "").replace(",", " ").lower().split()
        return cls({scheme: proxy for scheme, proxy in found.items() if proxy.strip()}, tuple(exceptions))

    def of(self, url: httpx.URL) -> str | None:
        """The URL of the proxy; None for none."""
        proxy = self.by_scheme.get(url.scheme) or self.by_scheme.get("all")
        if proxy is None or is_this_machine(url.host) or self._is_excepted(url):
            return None
        return proxy.strip() if "://" in proxy else f"http://{proxy.strip()}"

    def _is_excepted(self, url: httpx.URL) -> bool:
        port = url.port or PORTS.get(url.scheme)
        return any(_matches(exception, url.host.lower().rstrip("."), port) for exception in self.exceptions)


class EnvironmentProxies(httpx.BaseTransport):
    """Connections through the proxies of the environment, read when it is made."""

    def __init__(self, *, verify: bool | ssl.SSLContext, limits: httpx.Limits) -> None:
        self._proxies = Proxies.of_environment()
        self._verify = verify
        self._limits = limits
        self._transports: dict[str | None, httpx.HTTPTransport] = {}
        self._lock = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._transport_for(self._proxies.of(request.url)).handle_request(request)

    def close(self) -> None:
        for transport in self._transports.values():
            transport.close()

    def shown_for(self, url: httpx.URL) -> str | None:
        """The proxy of a URL for messages, without a password; None for none."""
        proxy = self._proxies.of(url)
        return None if proxy is None else _without_password(proxy)

    def _transport_for(self, proxy: str | None) -> httpx.HTTPTransport:
        with self._lock:
            if proxy not in self._transports:
                self._transports[proxy] = self._made(proxy)
            return self._transports[proxy]

    def _made(self, proxy: str | None) -> httpx.HTTPTransport:
        try:
            return httpx.HTTPTransport(
                verify=self._verify, limits=self._limits, proxy=None if proxy is None else httpx.Proxy(proxy)
            )
        except ImportError as error:
            raise ConnectionFailed(
                f"the environment asks for the proxy {_without_password(proxy)}, and SOCKS needs the package socksio: "
                "pip install 'httpx[socks]', or name the server in NO_PROXY"
            ) from error
        except OSError as error:
            # An ssl.SSLError is one, too.
            raise ConnectionFailed(
                f"the certificates of SSL_CERT_FILE or SSL_CERT_DIR cannot be read: {error.strerror or error}"
            ) from error
        except (ValueError, httpx.InvalidURL):
            # Without the cause: its text may quote the password.
            raise ConnectionFailed(
                f"the environment asks for the proxy {_without_password(proxy)}, which must look like "
                "http://host:port, https://host:port or socks5://host:port; for a server without a proxy, name it in "
                "NO_PROXY"
            ) from None


def is_this_machine(host: str) -> bool:
    """Whether the name or address is of this machine; a name is not looked up."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost") or name in UNSPECIFIED:
        return True
    address = _address(name)
    return address is not None and address.is_loopback


def _address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped


def _matches(exception: str, host: str, port: int | None) -> bool:
    if exception == "*":
        return True
    exception = exception.removeprefix("http://").removeprefix("https://").rstrip("/")
    address = _address(host)
    if "/" in exception:
        with suppress(ValueError):
            network = ipaddress.ip_network(exception.replace("[", "").replace("]", ""), strict=False)
            return address is not None and address.version == network.version and address in network
        return False
    name, wanted_port = _split(exception)
    if wanted_port is not None and wanted_port != port:
        return False
    excepted = _address(name)
    if excepted is not None or address is not None:
        return excepted == address
    name = name.removeprefix("*").strip(".")
    return host == name or host.endswith(f".{name}")


def _split(exception: str) -> tuple[str, int | None]:
    """The host of an exception and its port, if it names one; an IPv6 address with a port is in brackets."""
    host, colon, port = exception.rpartition(":")
    if colon and port.isdecimal() and (":" not in host or host.endswith("]")):
        return host, int(port)
    return exception, None


def _without_password(proxy: str | None) -> str:
    try:
        url = httpx.URL(proxy or "")
    except httpx.InvalidURL:
        return "of an unreadable URL"
    if b"@" in url.raw_path or "@" in url.fragment:
        # A "/" or "#" in the password ends the host there: what looks like a host with a port may be secret.
        return "of an unreadable URL"
    return f"{url.scheme}://{url.netloc.decode('ascii', 'replace')}"  # the netloc of httpx has no user
