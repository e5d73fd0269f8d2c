"""Unsafe settings refuse to start, or are named by `fma manage check --deploy`."""

import pytest
from django.conf import LazySettings
from structlog.testing import capture_logs

from fma_api.checks import check_deployment
from fma_api.cli import exposure
from fma_api.cli.problem import Problem
from fma_api.environment import EnvironmentInvalid, read

KEY = {"FMA_SECRET_KEY": "9wq8d7g2h3k4j5l6z7x8c9v0b1n2m3a4s5d6f7g8h9j0klqwertyu"}
SAFE = {
    "FMA_REGISTRATION": "closed",
    "ALLOWED_HOSTS": ["fma.example.org"],
    "FMA_HTTPS": True,
    "FMA_TRUST_PROXY": True,
    "CSRF_TRUSTED_ORIGINS": ["https://fma.example.org"],
}
LOOPBACK = ("127.0.0.1", "127.8.9.1", "::1")
FOR_OTHERS = ("0.0.0.0", "10.0.0.4", "::", "2001:db8::1", "fe80::1%eth0")


def set_all(settings: LazySettings, **values: object) -> None:
    for name, value in {**SAFE, **values}.items():
        setattr(settings, name, value)


def test_a_safe_deployment_is_not_warned_of(settings: LazySettings) -> None:
    set_all(settings)

    assert check_deployment(None) == []


@pytest.mark.parametrize(
    ("unsafe", "code"),
    [
        ({"FMA_REGISTRATION": "open"}, "fma.W003"),
        ({"ALLOWED_HOSTS": ["fma.example.org", "*"]}, "fma.W004"),
        ({"FMA_TRUST_PROXY": False}, "fma.W005"),
        ({"FMA_HTTPS": False}, "fma.W006"),
        ({"CSRF_TRUSTED_ORIGINS": ["https://a.example", "http://b.example"]}, "fma.W007"),
    ],
)
def test_each_unsafe_setting_is_named(settings: LazySettings, unsafe: dict[str, object], code: str) -> None:
    set_all(settings, **unsafe)

    [warning] = check_deployment(None)

    assert warning.id == code
    assert next(iter(unsafe)).removeprefix("FMA_") in warning.msg
    assert warning.hint


def test_debug_with_https_does_not_start() -> None:
    with pytest.raises(EnvironmentInvalid, match="FMA_DEBUG shows settings and source code"):
        read(KEY | {"FMA_DEBUG": "true", "FMA_HTTPS": "true"})


@pytest.mark.parametrize("ip", FOR_OTHERS)
def test_debug_is_for_this_machine_alone(settings: LazySettings, ip: str) -> None:
    settings.DEBUG = True

    with pytest.raises(Problem, match="unset FMA_DEBUG"):
        exposure.refuse_unsafe(ip)
    for local in LOOPBACK:
        exposure.refuse_unsafe(local)


def test_https_without_a_proxy_does_not_start(settings: LazySettings) -> None:
    set_all(settings, FMA_TRUST_PROXY=False)
    with pytest.raises(Problem, match="FMA_TRUST_PROXY=true"):
        exposure.refuse_unsafe("127.0.0.1")
    set_all(settings)
    exposure.refuse_unsafe("127.0.0.1")


@pytest.mark.parametrize("ip", [*FOR_OTHERS, *LOOPBACK])
@pytest.mark.parametrize("policy", ["open", "token", "closed"])
def test_open_registration_is_warned_of_where_others_can_come(
    settings: LazySettings, ip: str, policy: str
) -> None:
    settings.FMA_REGISTRATION = policy

    with capture_logs() as logs:
        exposure.warn(ip)

    is_unsafe = policy == "open" and ip in FOR_OTHERS
    assert [line["event"] for line in logs] == ["registration_is_open"] * is_unsafe
