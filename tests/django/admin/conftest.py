"""A record with something in every table, and people who look at it."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.template.response import SimpleTemplateResponse
from django.test import Client as Browser
from django.utils import timezone

from fma_django.clients.invitations import create_invitation
from fma_django.clients.joining import join
from fma_django.clients.registration import describe_client
from fma_django.clients.reports import receive_error, receive_telemetry
from fma_django.evaluations.opening import Chosen, open_evaluation
from fma_django.experiments.artifacts import publish_aggregate
from fma_django.models import (
    Client,
    ClientAggregateScore,
    ClientError,
    ClientTelemetry,
    ConfigVersion,
    EvaluationRound,
    FederatedModel,
    Invitation,
    ModelAggregate,
    ModelArtifact,
    ModelUpdate,
    Organisation,
    Participation,
    Round,
    Tag,
    Upload,
    Worker,
)
from fma_django.rounds import claiming, publishing
from fma_django.updates.in_parts import begin_update
from fma_django.updates.intake import UpdateFacts
from tests.evaluations import BINARY, answer
from tests.records import make_aggregate, make_client, make_model, make_score, make_user, send_update

SHOWN = (
    FederatedModel,
    Client,
    Round,
    ModelUpdate,
    ModelAggregate,
    ModelArtifact,
    ClientAggregateScore,
    Worker,
    ConfigVersion,
    Organisation,
    Participation,
    EvaluationRound,
    ClientTelemetry,
    ClientError,
    Upload,
    Invitation,
)


def add_rows(count: int) -> None:
    """`count` more rows in every table: published, failed and open rounds, artifacts, scores."""
    for number in range(count):
        model = make_model(
            make_user(),
            name=f"experiment {Round.objects.count()}",
            requirement="require_x_updates",
            requirement_args=[1],
        )
        ann = make_client(model).client
        organisation = Organisation.objects.create(name=f"hospital {Organisation.objects.count()}")
        create_invitation(by=None, models=[model.pk], tags=["ward-3"])
        tag = Tag.objects.create(name=f"site-{Tag.objects.count()}")
        describe_client(ann, name=f"scanner {number}", organisation=organisation, tags=[tag])
        join(model, ann)
        aggregate = make_aggregate(model, ann)
        publish_aggregate(aggregate, "2.0.0")
        open_and_close_evaluations(aggregate)
        make_score(aggregate, ann)
        receive_telemetry(ann, {"battery": 0.5, "free_memory_bytes": 2**30})
        receive_error(ann, "out_of_memory", federated_model=model, round_number=1)
        begin_update(model, ann, 1000, UpdateFacts())
        fail_a_round(model, ann)
        send_update(model, ann, base_aggregate=aggregate)
        Worker.objects.create(
            name=f"host:{Worker.objects.count()}", seen_on=timezone.now() - timedelta(hours=number)
        )


def open_and_close_evaluations(aggregate: ModelAggregate) -> None:
    """One that has closed with three contributors, one that is open, of clients of their own."""
    model = aggregate.federated_model
    clients = [make_client(model).client for _ in range(3)]
    for is_closed in (True, False):
        chosen = Chosen(clients=[client.pk for client in clients])
        evaluation = open_evaluation(model, BINARY, aggregate_id=aggregate.pk, chosen=chosen)
        for client in clients if is_closed else clients[:1]:
            answer(evaluation, client)


def fail_a_round(model: FederatedModel, client: Client) -> Round:
    due = send_update(model, client).round
    lease = claiming.claim(due.pk)
    assert lease is not None
    publishing.fail(lease, code="non_finite_result", detail="array 'w' overflowed float32")
    due.refresh_from_db()
    return due


@pytest.fixture
def admin_user(db: None) -> User:
    user = make_user("operator", staff=True)
    user.is_superuser = True
    user.save()
    return user


@pytest.fixture
def browser(admin_user: User) -> Browser:
    """A superuser's browser."""
    opened = Browser()
    opened.force_login(admin_user)
    return opened


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages come empty, with what they would show in `context_data`: most of their time is that of the templates."""
    monkeypatch.setattr(SimpleTemplateResponse, "rendered_content", "")


@pytest.fixture
def rows(db: None) -> None:
    add_rows(1)
