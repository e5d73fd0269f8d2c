"""The header with a client's signature under an update."""

from django.http import HttpRequest
from drf_spectacular.utils import OpenApiParameter

from fma_api.errors import InvalidHeader
from fma_api.parsers import content_digest
from fma_django.updates.intake import SentSignature
from fma_django.updates.signatures import TEXT, are_looked_at

SIGNATURE = "FMA-Signature"
IN_META = "HTTP_FMA_SIGNATURE"
SIGNATURE_HEADER = OpenApiParameter(
    SIGNATURE,
    str,
    OpenApiParameter.HEADER,
    description="A nonce and the client's signature, in hexadecimal digits, with a space between them.",
)


def signature_text(request: HttpRequest, sha256: str | None, *, digest_header: str) -> str:
    """The text of the header; "" without it, and on a server that looks at none.

    sha256: the digest of the body that the other header announces. Raises InvalidHeader.
    """
    text = str(request.META.get(IN_META, ""))
    if not text or not are_looked_at():
        return ""
    if not TEXT.fullmatch(text):
        raise InvalidHeader(
            f"{SIGNATURE} is a nonce in 32 hexadecimal digits, a space and a signature in 128; found {text[:40]!r}"
        )
    if not sha256:
        raise InvalidHeader(
            f"{SIGNATURE} covers the digest of the body: send {digest_header} with its sha-256, too"
        )
    return text


def signature_of(request: HttpRequest, base_aggregate: int | None) -> SentSignature | None:
    """The signature of an update that comes whole. Raises InvalidHeader."""
    if IN_META not in request.META:
        return None
    sha256 = content_digest(request.META.get("HTTP_CONTENT_DIGEST"))
    text = signature_text(request, sha256, digest_header="Content-Digest")
    return SentSignature(text, sha256 or "", base_aggregate) if text else None
