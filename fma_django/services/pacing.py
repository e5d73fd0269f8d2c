"""When a client that was not accepted should ask again."""

from fma_django.models import Client, Round


def retry_after_s(current: Round, client: Client, population: int) -> float:
    return 30.0
