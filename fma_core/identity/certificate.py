"""A certificate: an organisation signs the public key of one of its clients, for a time."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any
from unicodedata import normalize

from fma_core.errors import InvalidCertificate, InvalidKey, InvalidSignature
from fma_core.identity.encoding import statement, whole
from fma_core.identity.keys import fingerprint, is_signed, public_key_in, public_key_of, sign, signature_in
from fma_core.identity.members import MAX_BYTES, members_of

LABEL = "fma 1 certificate"
FORMAT = 1
MAX_LETTERS = 255
LATEST = 253_402_300_799  # the end of the year 9999


@dataclass(frozen=True)
class Certificate:
    """issuer, public_key: the keys of the organisation and of the client. not_before, not_after: Unix seconds.

    organisation, label: what the organisation calls itself and the client; `require_certificate` checks the first.
    """

    issuer: bytes
    organisation: str
    public_key: bytes
    label: str
    not_before: int
    not_after: int
    signature: bytes

    def encode(self) -> bytes:
        """The signed bytes."""
        return statement(
            LABEL,
            self.issuer,
            self.organisation.encode(),
            self.public_key,
            self.label.encode(),
            whole(self.not_before),
            whole(self.not_after),
        )

    def to_json(self) -> dict[str, Any]:
        members = {
            name: value.hex() if isinstance(value, bytes) else value for name, value in asdict(self).items()
        }
        return {"format": FORMAT, **members}


MEMBERS = frozenset({"format", *Certificate.__dataclass_fields__})


def issue_certificate(
    private_key: bytes,
    public_key: bytes,
    *,
    organisation: str,
    label: str = "",
    not_before: int,
    not_after: int,
) -> Certificate:
    """Sign a client's key. private_key: the organisation's. Raises InvalidCertificate for what cannot be signed."""
    unsigned = Certificate(
        public_key_of(private_key), organisation, public_key, label, not_before, not_after, signature=b""
    )
    _require_valid(unsigned)
    return replace(unsigned, signature=sign(private_key, unsigned.encode()))


def read_certificate(text: str | bytes) -> Certificate:
    """The certificate in a JSON text, its signature not checked yet. Raises InvalidCertificate."""
    if len(text) > MAX_BYTES:
        raise InvalidCertificate(f"a certificate has at most {MAX_BYTES} bytes; found {len(text)}")
    try:
        members = members_of(text)
    except ValueError:
        raise InvalidCertificate("a certificate is a JSON object; this is none") from None
    return certificate_of(members)


def certificate_of(members: object) -> Certificate:
    """The certificate in a JSON object, its signature not checked yet. Raises InvalidCertificate."""
    if not isinstance(members, dict) or members.keys() != MEMBERS:
        raise InvalidCertificate(f"a certificate has the members {', '.join(sorted(MEMBERS))}, and no others")
    if type(members["format"]) is not int or members["format"] != FORMAT:
        raise InvalidCertificate(f"{FORMAT} is the only format of certificates")
    for name in ("organisation", "label"):
        if not isinstance(members[name], str):
            raise InvalidCertificate(f"the {name} in a certificate is a text")
    for name in ("not_before", "not_after"):
        if type(members[name]) is not int:
            raise InvalidCertificate(f"{name} in a certificate is a number of seconds since 1970")
    try:
        read = Certificate(
            issuer=public_key_in(members["issuer"]),
            organisation=members["organisation"],
            public_key=public_key_in(members["public_key"]),
            label=members["label"],
            not_before=members["not_before"],
            not_after=members["not_after"],
            signature=signature_in(members["signature"]),
        )
    except (InvalidKey, InvalidSignature) as error:
        raise InvalidCertificate(f"the certificate is damaged: {error.message}") from error
    _require_valid(read)
    return read


def require_certificate(
    certificate: Certificate, public_key: bytes, *, issuers: Mapping[bytes, str], now: float
) -> None:
    """Require that one of these issuers has signed this key, in the name of its own organisation, and that the
    certificate is valid at the time `now`, in seconds since 1970.

    issuers: their organisations by their public keys, as whoever checks knows them.
    Raises InvalidCertificate.
    """
    if certificate.public_key != public_key:
        raise InvalidCertificate(
            f"the certificate is for the key {fingerprint(certificate.public_key)}, not for {fingerprint(public_key)}"
        )
    if certificate.issuer not in issuers:
        raise InvalidCertificate(f"its issuer {fingerprint(certificate.issuer)} is not trusted here")
    if not is_signed(certificate.issuer, certificate.encode(), certificate.signature):
        raise InvalidCertificate("the signature of the certificate is wrong")
    # Anybody can write any name into a certificate of their own.
    expected = issuers[certificate.issuer]
    if normalize("NFC", certificate.organisation) != normalize("NFC", expected):
        raise InvalidCertificate(
            f"the certificate names the organisation {certificate.organisation!r}; its issuer "
            f"{fingerprint(certificate.issuer)} is the key of {expected!r}"
        )
    if now < certificate.not_before:
        raise InvalidCertificate("the certificate is not valid yet")
    if now >= certificate.not_after:
        raise InvalidCertificate("the certificate has expired")


def _require_valid(certificate: Certificate) -> None:
    for name, text in (("organisation", certificate.organisation), ("label", certificate.label)):
        if len(text) > MAX_LETTERS or not text.isprintable():
            raise InvalidCertificate(
                f"the {name} in a certificate has at most {MAX_LETTERS} printable characters"
            )
    if not certificate.organisation.strip():
        raise InvalidCertificate("a certificate names the organisation")
    if not 0 <= certificate.not_before < certificate.not_after <= LATEST:
        raise InvalidCertificate(
            "not_before and not_after are seconds since 1970, the first before the second"
        )
