"""How the admin writes durations and JSON."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client as Browser

from fma_django.admin.durations import duration
from fma_django.admin.pretty_json import MAX_LINES, one_line, pretty_json
from fma_django.models import Client, FederatedModel, Round
from tests.django.admin.test_pages import url_of
from tests.records import make_client, make_model


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0 s"),
        (3.14, "3.1 s"),
        (60, "1 min"),
        (125, "2 min 5 s"),
        (7200, "2 h"),
        (3600 * 27 + 120, "1 d 3 h"),
        (86400, "1 d"),
    ],
)
def test_duration_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration(timedelta(seconds=seconds)) == text


@pytest.mark.django_db
def test_times_have_seconds_and_their_zone(browser: Browser) -> None:
    model = make_model()
    opened = datetime(2031, 5, 7, 16, 4, 9, tzinfo=UTC)
    FederatedModel.objects.update(created_on=opened)
    Round.objects.update(opened_on=opened)
    client = make_client(model).client
    Client.objects.update(last_seen_on=opened)
    for row in (model, model.rounds.get(), client):
        for url in (url_of(type(row), "changelist"), url_of(type(row), "change", row.pk)):
            content = browser.get(url).content.decode()
            assert "2031-05-07 16:04:09 UTC" in content, url
            assert not re.search(r"\d (a|p)\.m\.", content), url


def test_duration_that_is_not_known() -> None:
    assert duration(None) == "–"


def test_long_json_is_cut_and_says_so() -> None:
    text = pretty_json(list(range(MAX_LINES + 100)))
    assert text.count("\n") == MAX_LINES
    assert "… and 102 more lines" in text


def test_json_on_one_line_is_cut() -> None:
    assert one_line({"a": 1}) == '{"a": 1}'
    assert len(one_line("x" * 100)) == 60
