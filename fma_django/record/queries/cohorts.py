"""The clients considered for a round, the chosen ones, and why the others were not chosen."""

from django.db.models import QuerySet

from fma_django.models import Participation, Round


def selection_of(round_: Round) -> QuerySet[Participation]:
    """The chosen first, then the others, each in the order of their clients."""
    return round_.participations.select_related("client").order_by("-is_chosen", "client_id")
