"""Requests of the server itself to other servers: over HTTPS, to allowed hosts and addresses, bounded in size and time.

An address is checked when the connection is opened, and the connection is opened to the address that was checked: a
name that answers differently the second time (DNS rebinding) gains nothing. Redirects are checked like the first
request. Proxies of the environment are not used, since they would choose the address.
"""

import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import httpcore
from django.http.request import validate_host

from fma_django import conf

TIMEOUT_S = 10.0
MOST_BYTES = 2**20
MOST_REDIRECTS = 3
REDIRECTS = frozenset({301, 302, 303, 307, 308})
HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "fma"}

FORBIDDEN = tuple(
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # public, and Azure's host for each of its virtual machines, with their secrets
        "192.0.0.0/24",  # not public, which Python knows from 3.11.9 on; Oracle's metadata
        "2002::/16",  # 6to4 and Teredo hold another address, and would lead past the check of that
        "2001::/32",
        "fec0::/10",  # private once, and still so where it is used
    )
)


class RequestFailed(Exception):
    """There is no answer that can be used. The message says why, for the log."""


def fetch(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    form: Mapping[str, str] | None = None,
    most_bytes: int = MOST_BYTES,
    timeout_s: float = TIMEOUT_S,
) -> bytes:
    """The body of the answer to a GET, or to the POST of a form.

    A request with headers or a form follows no redirect: credentials are for the address that was meant.
    Raises RequestFailed.
    """
    deadline = time.monotonic() + timeout_s
    content, said = None, {**HEADERS, **(headers or {})}
    if form is not None:
        content, said["Content-Type"] = urlencode(form).encode(), "application/x-www-form-urlencoded"
    redirects = REDIRECTS if headers is None and form is None else frozenset[int]()
    context = ssl.create_default_context()
    with httpcore.ConnectionPool(ssl_context=context, network_backend=_Checked(deadline)) as pool:
        for _ in range(1 + MOST_REDIRECTS):
            _check_url(url)
            try:
                with pool.stream(
                    "GET" if form is None else "POST", url, headers=[*said.items()], content=content
                ) as response:
                    if response.status not in redirects:
                        return _body(response, url, most_bytes)
                    location = _header(response, b"location")
            except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
                raise RequestFailed(f"{_origin(url)}: {error or type(error).__name__}") from error
            url = _joined(url, location)
    raise RequestFailed(f"{_origin(url)}: more than {MOST_REDIRECTS} redirects")


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises for what is no port
    except ValueError as error:
        raise RequestFailed(f"the address is none: {error}") from error
    if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc or not url.isascii():
        raise RequestFailed(
            f"an address must be https://, with a host and without a user; {_origin(url)} is not"
        )
    if not validate_host(parts.hostname, conf.current().outgoing_hosts):
        raise RequestFailed(f"the host {parts.hostname} is not among those of FMA_OUTGOING_HOSTS")


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise RequestFailed(f"{_origin(url)}: a redirect to no address") from error


def _origin(url: str) -> str:
    """Enough of an address for a log: the path and the query may hold secrets."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"[:200]
    except ValueError:
        return "the address"


def _body(response: httpcore.Response, url: str, most_bytes: int) -> bytes:
    if response.status != 200:
        raise RequestFailed(f"{_origin(url)}: answered {response.status}")
    if _header(response, b"content-encoding") not in ("", "identity"):
        raise RequestFailed(f"{_origin(url)}: answered in a coding that was not asked for")
    body = bytearray()
    for piece in response.iter_stream():
        body += piece
        if len(body) > most_bytes:
            raise RequestFailed(f"{_origin(url)}: answered more than {most_bytes} bytes")
    return bytes(body)


def _header(response: httpcore.Response, name: bytes) -> str:
    return b"".join(value for key, value in response.headers if key.lower() == name).decode(
        "ascii", "replace"
    )


def is_allowed(address: str, networks: Sequence[conf.Network]) -> bool:
    """Whether a connection may be opened to this IP address: a public one, or one of the networks."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if ip.version == 6 and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if any(ip in network for network in networks):
        return True
    if not ip.is_global or any(ip in network for network in FORBIDDEN):
        return False
    return not (ip.is_multicast or ip.is_reserved or ip.is_link_local)


class _Checked(httpcore.SyncBackend):
    """Opens connections to allowed addresses alone, which end at the deadline whatever the other side does."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"the host {host} is unknown") from error
        networks = conf.current().outgoing_networks
        allowed = [str(entry[4][0]) for entry in found if is_allowed(str(entry[4][0]), networks)]
        if not allowed:
            raise httpcore.ConnectError(
                f"the host {host} has no public address; name its network in FMA_OUTGOING_NETWORKS to allow it"
            )
        for number, address in enumerate(allowed, 1):
            try:
                stream = super().connect_tcp(
                    address, port, _left(self._deadline), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if number == len(allowed):
                    raise
            else:
                return _Bounded(stream, self._deadline)
        raise AssertionError("unreachable")

    def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore.NetworkStream:
        raise httpcore.ConnectError("a socket of this machine is no address")


class _Bounded(httpcore.NetworkStream):
    """A connection whose reads and writes share one deadline: bytes that drip in do not prolong it."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._deadline))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, _left(self._deadline))
        return _Bounded(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise httpcore.ReadTimeout("no whole answer in time")
    return left_s
