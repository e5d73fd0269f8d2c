"""The settings of the record, as a Django project gives them."""

from dataclasses import FrozenInstanceError
from threading import Thread

import pytest
from django.conf import LazySettings
from django.core.checks import run_checks
from django.test import override_settings

from fma_django import conf


def messages() -> dict[str | None, str]:
    return {message.id: message.msg for message in run_checks() if (message.id or "").startswith("fma.")}


def test_what_a_project_says_holds(settings: LazySettings) -> None:
    settings.FMA_LEASE_SECONDS = 30
    assert conf.current().lease_s == 30
    with override_settings(FMA_LEASE_SECONDS=7):
        assert conf.current().lease_s == 7
    assert conf.current().lease_s == 30


def test_what_a_project_does_not_say_has_its_default(settings: LazySettings) -> None:
    del settings.FMA_LEASE_SECONDS
    assert conf.current().lease_s == conf.Settings().lease_s == 60


def test_the_settings_cannot_be_changed_in_passing() -> None:
    with pytest.raises(FrozenInstanceError):
        conf.current().lease_s = 1  # type: ignore[misc]


def test_a_change_holds_in_every_thread(settings: LazySettings) -> None:
    settings.FMA_MAX_ARRAYS = 5
    seen: list[int] = []
    thread = Thread(target=lambda: seen.append(conf.current().max_arrays))
    thread.start()
    thread.join()
    assert seen == [5]


def test_a_misspelt_name_is_warned_of_and_the_nearest_is_named(settings: LazySettings) -> None:
    settings.FMA_LEASE_SECOND = 30
    assert messages() == {
        "fma.W002": "FMA_LEASE_SECOND is not a setting of fma; the nearest one is FMA_LEASE_SECONDS"
    }


def test_no_name_of_the_environment_is_warned_of() -> None:
    assert messages() == {}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "FMA_REGISTRATION",
            "public",
            ("fma.E001", "FMA_REGISTRATION is open, token, approval, jwt or closed; found 'public'"),
        ),
        ("FMA_REGISTRATION", "token", ("fma.E002", "FMA_REGISTRATION=token needs FMA_ENROLMENT_TOKEN")),
        (
            "FMA_EXECUTOR",
            "dask",
            ("fma.E004", "FMA_EXECUTOR is 'dask', so FMA_DASK_SCHEDULER must be set; it is not"),
        ),
        ("FMA_MAX_ATTEMPTS", 0, ("fma.E003", "FMA_MAX_ATTEMPTS must be above 0; found 0")),
    ],
)
def test_a_value_that_cannot_work_is_refused(
    settings: LazySettings, name: str, value: object, message: tuple[str, str]
) -> None:
    setattr(settings, name, value)
    assert messages() == dict([message])
