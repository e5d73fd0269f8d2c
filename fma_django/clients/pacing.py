"""The time at which a client that was not accepted should ask again."""

from django.core.cache import cache
from django.utils import timezone

from fma_core.selection import pace
from fma_django.models import Client, FederatedModel, Round
from fma_django.models.round import RoundState
from fma_django.rounds.facts import num_clients

COUNTED_FOR_S = 60


def retry_after_s(current: Round, client: Client) -> float:
    """Seconds; the same for the same client, round and expected end, and different from one client to the next."""
    population = _population(current.federated_model)
    rng = pace.pace_rng(current.federated_model.seed, current.number, str(client.pk))
    return pace.retry_after_s(rng, num_clients=population, until_s=_until_s(current))


def _population(federated_model: FederatedModel) -> int:
    # With a million clients each request would wait for a count of all, and hundreds come each second.
    key = f"fma-population-{federated_model.pk}"
    return int(cache.get_or_set(key, lambda: num_clients(federated_model), COUNTED_FOR_S) or 0)


def _until_s(current: Round) -> float | None:
    """The seconds that the round is expected to last: as many as the last one."""
    # Not until its deadline: with a goal rounds end long before it, and who sleeps through them is missed.
    if current.started_on is None:
        return None
    published = Round.objects.filter(federated_model=current.federated_model_id, state=RoundState.PUBLISHED)
    last = published.order_by("-number").only("started_on", "closed_on").first()
    if last is None or last.started_on is None or last.closed_on is None:
        return None
    expected = current.started_on + (last.closed_on - last.started_on)
    if current.deadline_at is not None:
        expected = min(expected, current.deadline_at)
    return (expected - timezone.now()).total_seconds()
