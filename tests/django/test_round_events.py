"""The log has a line for each event in the life of a round, and none for what was rolled back."""

import re
from typing import Any

import pytest
from django.db import transaction

from fma_django.experiments import lifecycle
from fma_django.models import FederatedModel, Round
from fma_django.rounds import claiming, publishing
from fma_django.rounds.aggregation import aggregate_round
from fma_django.rounds.rows import open_round
from tests.records import WEIGHTS, make_client, make_model, send_update

pytestmark = pytest.mark.django_db(transaction=True)


def events_of(model: FederatedModel, caplog: pytest.LogCaptureFixture) -> list[tuple[str, int]]:
    """Event and number of the round, in order."""
    found = []
    for record in caplog.records:
        said: Any = record.msg
        if isinstance(said, dict) and str(said.get("event", "")).startswith("round_"):
            assert (said["model"], bool(said["round_id"])) == (model.pk, True)
            found.append((said["event"], said["round"]))
    return found


@pytest.fixture(autouse=True)
def info(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr("fma_django.queue.aggregate", lambda round_id: None)


def test_a_round_opens_closes_is_claimed_and_published(caplog: pytest.LogCaptureFixture) -> None:
    model = make_model(initial_model=WEIGHTS, requirement="require_x_updates", requirement_args=[1])
    due = send_update(model, make_client(model).client).round
    aggregate_round(due.pk)

    assert events_of(model, caplog) == [
        ("round_opened", 1),
        ("round_closed", 1),
        ("round_opened", 2),
        ("round_claimed", 1),
        ("round_published", 1),
    ]


def test_a_round_that_fails_or_is_cancelled_says_so(caplog: pytest.LogCaptureFixture) -> None:
    model = make_model(initial_model=WEIGHTS, requirement="require_x_updates", requirement_args=[1])
    due = send_update(model, make_client(model).client).round
    lease = claiming.claim(due.pk)
    assert lease is not None
    publishing.fail(lease, code="non_finite_result", detail="array 'w' overflowed")
    publishing.cancel(model.rounds.get(state="collecting"))
    lifecycle.cancel_experiment(model)

    events = events_of(model, caplog)
    assert events[-4:] == [
        ("round_failed", 1),
        ("round_cancelled", 2),
        ("round_opened", 3),
        ("round_cancelled", 3),
    ]
    assert re.search("'code': 'non_finite_result'", caplog.text)


def test_a_lease_that_is_taken_over_is_another_attempt(caplog: pytest.LogCaptureFixture) -> None:
    model = make_model(initial_model=WEIGHTS, requirement="require_x_updates", requirement_args=[1])
    due = send_update(model, make_client(model).client).round
    for _ in range(2):
        claiming.claim(due.pk)
        Round.objects.filter(pk=due.pk).update(lease_expires_at=due.opened_on)
    attempts = [record.msg["attempt"] for record in caplog.records if "'round_claimed'" in str(record.msg)]
    assert attempts == [1, 2]


def test_what_was_rolled_back_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    model = make_model()
    lifecycle.cancel_experiment(model)
    caplog.clear()
    with transaction.atomic():
        open_round(model)
        transaction.set_rollback(True)
    assert events_of(model, caplog) == []
