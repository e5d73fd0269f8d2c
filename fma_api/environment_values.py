"""From the text of an environment variable to a value, and from a default to the text that is written for it.

Each parser gives the value, or raises ValueError that says what the text must be: "a number of seconds above 0".
"""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

import environ
from django.http.request import split_domain_port

from fma_django.conf import Network, SizeBytes
from fma_django.storage.address import where_is

_UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_WORDS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


def text(value: str) -> str:
    return value


def path(value: str) -> Path:
    if not value:
        raise ValueError("a path")
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError:  # nobody has this home
        raise ValueError("a path") from None


def optional_path(value: str) -> Path | None:
    return path(value) if value else None


def boolean(value: str) -> bool:
    try:
        return _WORDS[value.lower()]
    except KeyError:
        raise ValueError("true or false") from None


def names(value: str) -> list[str]:
    return [name for name in (part.strip() for part in value.split(",")) if name]


def host_names(value: str) -> list[str]:
    given = names(value)
    # With a port, with a scheme, with an underscore or a dot at its end, a name matches no Host that Django accepts.
    if not given or not all(name == "*" or split_domain_port(name) == (name.lower(), "") for name in given):
        raise ValueError(
            "host names of letters, digits, '-' and '.', without scheme, port or quotes, separated by commas, such as "
            "fma.example.org,10.0.0.1,[::1]; .example.org stands for itself and every name below it, * for any host"
        )
    return given


def outgoing_hosts(value: str) -> tuple[str, ...]:
    return tuple(host_names(value))


def domains(value: str) -> tuple[str, ...]:
    return tuple(host_names(value.lower())) if value else ()


def roles_of_groups(value: str) -> tuple[tuple[str, str], ...]:
    """Pairs of a claim's value and a role."""
    pairs = [name.rpartition("=") for name in names(value)]
    if not all(group.strip() and role.strip() for group, _, role in pairs):
        raise ValueError(
            "values of the claim with their roles, separated by commas, such as fma-operators=operator,/audit=auditor"
        )
    return tuple((group.strip(), role.strip()) for group, _, role in pairs)


def networks(value: str) -> tuple[Network, ...]:
    try:
        return tuple(ip_network(name) for name in names(value))
    except ValueError:
        raise ValueError(
            "networks of IP addresses, separated by commas, such as 10.0.0.0/8,fd00::/8"
        ) from None


LONGEST_ISSUER = 200
"""As long as allauth's column."""


def issuer(value: str) -> str:
    """An issuer exactly as the provider writes it, with or without a slash at its end."""
    parts = urlsplit(value)
    if value and (
        parts.scheme != "https"
        or not parts.hostname
        or parts.query
        or parts.fragment
        or len(value) > LONGEST_ISSUER
    ):
        raise ValueError(
            f"an address of at most {LONGEST_ISSUER} characters that starts with https://, without '?' and '#'"
        )
    return value


def keys_place(value: str) -> str:
    """A file, or an https:// address; the keys that come by plain HTTP would be anybody's."""
    if not value or (value.startswith("https://") and urlsplit(value).hostname):
        return value
    if "://" in value or not os.access(value, os.R_OK) or not Path(value).is_file():
        raise ValueError("an address that starts with https://, or a file that can be read")
    return str(path(value))


def size_bytes(value: str) -> int:
    match = re.fullmatch(r"(\d+)\s*([a-zA-Z]*)", value)
    if match is None or match[2].upper() not in _UNITS or not int(match[1]):
        raise ValueError("a number of bytes, such as 1048576, 64 MiB or 2 GiB")
    return int(match[1]) * _UNITS[match[2].upper()]


def whole(*, least: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not re.fullmatch(r"\d+", value) or int(value) < least:
            raise ValueError(f"a whole number, {least} or more")
        return int(value)

    return parse


def seconds(value: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?", value) or float(value) <= 0:
        raise ValueError("a number of seconds above 0")
    return float(value)


def one_of(*choices: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        for choice in choices:
            if value.lower() == choice.lower():
                return choice
        raise ValueError("one of " + ", ".join(choices))

    return parse


def url(*schemes: str, optional: bool = False) -> Callable[[str], str]:
    def parse(value: str) -> str:
        with suppress(ValueError):  # its message would show a part of the password
            if (not value and optional) or urlsplit(value).scheme in schemes:
                return value
        raise ValueError("a URL that starts with " + " or ".join(f"{scheme}://" for scheme in schemes))

    return parse


def storage_url(value: str) -> str:
    where_is(value)
    return value


def database_url(value: str) -> str:
    url("sqlite", "postgres", "postgresql")(value)
    if value.startswith("sqlite:"):
        if not value.startswith("sqlite://") or not value.removeprefix("sqlite://").strip("/"):
            raise ValueError("sqlite:/// and a path, as in sqlite:////srv/fma/fma.sqlite3")
    elif not _names_a_database(value):
        raise ValueError(
            "postgres://user:password@host:5432/name, where each character of the password other than a letter or a "
            "digit is written as %XX (# as %23, / as %2F, @ as %40)"
        )
    return value


def _names_a_database(value: str) -> bool:
    try:
        database = environ.Env.db_url_config(value)
    except ValueError:  # its message would show a part of the password
        return False
    name = database["NAME"] or ""
    return "@" not in name and "#" not in value and bool(name or "service" in database.get("OPTIONS", {}))


def secret(value: str) -> str:
    """As Django's own check asks (security.W009), which nobody reads."""
    if value and (len(value) < 50 or len(set(value)) < 5):
        raise ValueError("50 random characters or more, as `openssl rand -hex 32` prints")
    return value


def enrolment_token(value: str) -> str:
    """Long and varied enough not to be guessed at the pace of FMA_LOGIN_RATE."""
    if value and (len(value) < 16 or len(set(value)) < 8):
        raise ValueError("16 characters or more, 8 of them different, as `openssl rand -hex 16` prints")
    return value


_PERIODS_S = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "hour": 3600, "d": 86_400, "day": 86_400}


def much_per_time(much: Callable[[str], int], example: str) -> Callable[[str], tuple[int, int] | None]:
    """The amount and the seconds of a rate; None for an empty text, which limits nothing."""

    def parse(value: str) -> tuple[int, int] | None:
        if not value:
            return None
        amount, _, period = value.partition("/")
        try:
            return much(amount.strip()), _PERIODS_S[period.strip()]
        except (ValueError, KeyError):
            raise ValueError(
                f"empty, or an amount in a period (s, min, hour or day), such as {example}"
            ) from None

    return parse


def rate(value: str) -> tuple[int, int]:
    """How many in how many seconds."""
    said = re.fullmatch(r"([1-9]\d{0,8})/(s|sec|min|m|h|hour|d|day)", value)
    if said is None:
        raise ValueError("a number of requests in a period, such as 30/min, 5/s or 1000/day")
    return int(said[1]), _PERIODS_S[said[2]]


_PARSERS: dict[Any, Callable[[str], object]] = {
    bool: boolean,
    float: seconds,
    str: text,
    SizeBytes: size_bytes,
    Path | None: optional_path,
}


def parser_of(annotation: Any) -> Callable[[str], object]:
    """The parser of a type that says by itself what the text must be; KeyError for any other."""
    if get_origin(annotation) is Literal:
        return one_of(*get_args(annotation))
    return _PARSERS[annotation]


def as_text(value: Any, parse: Callable[[str], object]) -> str:
    """A default as it is written in the environment, to be read by `parse`."""
    if value is None:
        return ""
    if isinstance(value, tuple) and parse in (outgoing_hosts, networks, domains, roles_of_groups):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    if parse is rate:
        return (
            f"{value[0]}/{next(name for name in ('min', 's', 'hour', 'day') if _PERIODS_S[name] == value[1])}"
        )
    if parse is size_bytes:
        unit = next(unit for unit in ("TiB", "GiB", "MiB", "KiB", "B") if value % _UNITS[unit.upper()] == 0)
        return f"{value // _UNITS[unit.upper()]} {unit}"
    return str(value).removesuffix(".0")
