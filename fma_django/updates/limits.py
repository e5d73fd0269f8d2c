"""The limits of the size and the number of updates, checked before a body travels."""

from fma_core.arrays.codecs.header import canonical_form
from fma_core.arrays.codecs.zstd import is_zstd
from fma_core.errors import TooLarge, UnsupportedCoding
from fma_django.record.rules import rules_of
from fma_django.storage import get_store
from fma_django.storage.spool import require_room
from fma_django.updates.expected import Expected
from fma_django.updates.rates import count_update

# For less, looking costs more than being told when it is written.
LARGE_BYTES = 2**20


def allow(expected: Expected, size_bytes: int, content_encoding: str = "") -> None:
    """Let so many bytes travel for an update that is expected, and count what they become.

    Raises UnsupportedCoding, TooLarge, StorageFull, RateExceeded.
    """
    require_size(expected, size_bytes)
    size_bytes = plain_bytes(expected, size_bytes, content_encoding)
    if size_bytes >= LARGE_BYTES:
        require_room(get_store().spool_dir(), size_bytes)
    count_update(expected.federated_model_id, expected.client_id, size_bytes)


def plain_bytes(expected: Expected, size_bytes: int, content_encoding: str) -> int:
    """The size of a body when nothing of it is compressed. Raises UnsupportedCoding.

    A few bytes can be a frame of gigabytes: only arrays that are known say where it must end.
    """
    if not is_zstd(content_encoding):
        return size_bytes
    if expected.spec is None:
        raise UnsupportedCoding(
            "a compressed body needs a model whose arrays are known; the first weights of one must come as they are"
        )
    return max(size_bytes, canonical_form(expected.spec).size_bytes)


def require_size(expected: Expected, size_bytes: int) -> None:
    """Raises TooLarge for more than the model takes."""
    most = rules_of(expected.configuration).closing.policy.max_update_bytes
    if most is not None and size_bytes > most:
        raise TooLarge(
            f"an update of this model may have {most} bytes (max_update_bytes); this one has {size_bytes}"
        )
