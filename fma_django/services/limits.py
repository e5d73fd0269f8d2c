"""How large an update may be and how many may come: asked when it may travel, before it does."""

from fma_core.errors import TooLarge
from fma_django.rates import count_update
from fma_django.services.rules import rules_of
from fma_django.services.updates import Expected


def allow(expected: Expected, size_bytes: int) -> None:
    """Let so many bytes travel for an update that is expected, and count them. Raises TooLarge, RateExceeded."""
    require_size(expected, size_bytes)
    count_update(expected.federated_model_id, expected.client_id, size_bytes)


def require_size(expected: Expected, size_bytes: int) -> None:
    """Raises TooLarge for more than the model takes."""
    most = rules_of(expected.configuration).closing.policy.max_update_bytes
    if most is not None and size_bytes > most:
        raise TooLarge(
            f"an update of this model may have {most} bytes (max_update_bytes); this one has {size_bytes}"
        )
