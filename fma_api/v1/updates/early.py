"""The refusal of a large JSON body before it is read: its model stands in it, and mostly at its beginning."""

import re
from typing import IO, Any, cast

from django.http import HttpRequest

from fma_django import conf
from fma_django.updates.intake import Sender, refuse_before_facts

HEAD_BYTES = 1024
MODEL = re.compile(rb'\s*\{\s*"federated_model"\s*:\s*([1-9][0-9]{0,17})\s*,')


def refuse_early(request: HttpRequest, credential_hash: str, *, size_bytes: int) -> None:
    """Raise what would refuse any update of this client for the model that the body names first, if it does so.

    Not with an Idempotency-Key: what it made before is there, whatever has become of its round.
    """
    # A body in chunks, or one that is too large, is for whoever reads it.
    if "HTTP_IDEMPOTENCY_KEY" in request.META or not 0 < size_bytes <= conf.current().max_json_bytes:
        return
    stream: IO[bytes] = cast("Any", request)._stream
    head = stream.read(HEAD_BYTES)
    cast("Any", request)._stream = _Rejoined(head, stream)
    model = MODEL.match(head)
    if model is not None:
        refuse_before_facts(Sender(int(model[1]), credential_hash=credential_hash), size_bytes)


class _Rejoined:
    """A stream of which the beginning has been read."""

    def __init__(self, head: bytes, stream: IO[bytes]) -> None:
        self._head, self._stream = head, stream

    def read(self, size: int = -1) -> bytes:
        head = self._head if size < 0 else self._head[:size]
        self._head = self._head[len(head) :]
        return head + self._stream.read(size if size < 0 else size - len(head))
