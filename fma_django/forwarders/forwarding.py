"""Send the metrics of published rounds to MLflow and TensorBoard, after the rounds and apart from them.

`Forwarding` remembers the last round that was sent; after a failure the sweep asks again.
"""

from datetime import timedelta

import structlog
from django.core.cache import cache
from django.db.models import Max, Q
from django.utils import timezone

from fma_django import conf, queue
from fma_django.forwarders.forwarder import Forwarder, numbers_of_rounds
from fma_django.forwarders.mlflow_runs import MlflowRuns
from fma_django.forwarders.tensorboard_events import TensorboardEvents
from fma_django.models import FederatedModel, Forwarding
from fma_django.models.federated_model import ModelState
from fma_django.models.round import RoundState
from fma_django.record.queries.metrics import published_rounds

log = structlog.get_logger(__name__)

ROUNDS_AT_A_TIME = 50
REST_AFTER_FAILURE_S = 60
BUSY_FOR = timedelta(minutes=5)  # longer than one piece can take, with the time limits that forwarders have


def forwarders() -> list[Forwarder]:
    """The forwarders that the settings name."""
    named: list[Forwarder] = []
    if uri := conf.current().mlflow_tracking_uri:
        named.append(MlflowRuns(uri))
    if folder := conf.current().tensorboard_dir:
        named.append(TensorboardEvents(folder))
    return named


def ask_to_forward(federated_model_id: int) -> None:
    """Enqueue the forwarding of a model's metrics, if the settings name a forwarder."""
    if forwarders():
        queue.forward(federated_model_id)


def forward(federated_model_id: int) -> None:
    """Send the rounds that were published since the last time. A failure is logged, and the sweep tries again."""
    federated_model = FederatedModel.objects.filter(pk=federated_model_id).first()
    if federated_model is None:
        return
    for forwarder in forwarders():
        if cache.get(_resting(forwarder)):
            continue
        try:
            _forward(federated_model, forwarder)
        except Exception as error:  # noqa: BLE001 - whatever a library raises
            cache.set(_resting(forwarder), True, REST_AFTER_FAILURE_S)
            log.warning(
                "forwarding_failed",
                model=federated_model.pk,
                target=forwarder.target,
                error=repr(error)[:500],
            )


def sweep_forwarding() -> None:
    """Enqueue again the models whose newest round was not sent."""
    for forwarder in forwarders():
        if cache.get(_resting(forwarder)):
            continue
        published = FederatedModel.objects.annotate(
            newest=Max("rounds__number", filter=Q(rounds__state=RoundState.PUBLISHED))
        )
        done = dict(
            Forwarding.objects.filter(target=forwarder.target).values_list("federated_model", "round_number")
        )
        for model_id, newest in published.filter(newest__isnull=False).values_list("pk", "newest"):
            if newest > done.get(model_id, 0):
                queue.forward(model_id)


def _forward(federated_model: FederatedModel, forwarder: Forwarder) -> None:
    done = _claimed(federated_model, forwarder)
    if done is None:
        return
    try:
        _send(federated_model, forwarder, done)
    finally:
        Forwarding.objects.filter(pk=done.pk).update(busy_until=None)


def _claimed(federated_model: FederatedModel, forwarder: Forwarder) -> Forwarding | None:
    """Claim the forwarding of a model; None while another worker sends, which looks for newer rounds at its end."""
    done, _ = Forwarding.objects.get_or_create(federated_model=federated_model, target=forwarder.target)
    now = timezone.now()
    idle = Forwarding.objects.filter(Q(busy_until__isnull=True) | Q(busy_until__lte=now), pk=done.pk)
    if not idle.update(busy_until=now + BUSY_FOR):
        return None
    done.refresh_from_db()
    return done


def _send(federated_model: FederatedModel, forwarder: Forwarder, done: Forwarding) -> None:
    if not done.run:
        # Written down before anything is sent, so that there is one run a model, whatever fails later.
        done.run = forwarder.begin(federated_model)
        Forwarding.objects.filter(pk=done.pk).update(run=done.run)
    while True:
        # Scores of a round arrive when it is over, so that the last one sent is looked at once more.
        since = published_rounds(federated_model).filter(number__gte=done.round_number)
        rounds = list(since[:ROUNDS_AT_A_TIME])
        if not rounds or rounds[-1].number <= done.round_number:
            break
        numbers = numbers_of_rounds(rounds, after=done.round_number)
        if numbers:
            forwarder.send(done.run, numbers)
        done.round_number = rounds[-1].number
        Forwarding.objects.filter(pk=done.pk).update(
            round_number=done.round_number, busy_until=timezone.now() + BUSY_FOR
        )
    if federated_model.state == ModelState.ENDED:
        forwarder.end(done.run)


def _resting(forwarder: Forwarder) -> str:
    return f"fma_forwarding_rests_{forwarder.target}"
