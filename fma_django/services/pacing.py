"""When a client that was not accepted should ask again."""

from django.utils import timezone

from fma_core.selection import pace
from fma_django.models import Client, Round
from fma_django.models.round import RoundState

# With very many clients their window grows beyond any round; nobody is told to stay away for longer.
MAX_S = 86_400.0


def retry_after_s(current: Round, client: Client, population: int) -> float:
    """Seconds; the same for the same client, round and expected end, and different from one client to the next.

    population: how many clients may be told the same.
    """
    rng = pace.pace_rng(current.federated_model.seed, current.number, str(client.pk))
    return min(MAX_S, pace.retry_after_s(rng, num_clients=population, until_s=_until_s(current)))


def _until_s(current: Round) -> float | None:
    """How long the round is expected to last, if it takes as long as the last one did."""
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
