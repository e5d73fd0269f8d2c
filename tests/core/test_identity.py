"""Keys, proofs, certificates and signed updates: vectors, and laws that no forgery may break."""

import hashlib
import json
import struct
from dataclasses import replace
from importlib.resources import files
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fma_core.errors import FMAError, InvalidCertificate, InvalidKey, InvalidSignature
from fma_core.identity import pem, possession
from fma_core.identity.certificate import (
    Certificate,
    certificate_of,
    issue_certificate,
    read_certificate,
    require_certificate,
)
from fma_core.identity.encoding import json_digest, statement
from fma_core.identity.keys import (
    fingerprint,
    is_signed,
    new_private_key,
    public_key_in,
    public_key_of,
    require_public_key,
    sign,
    signature_in,
)
from fma_core.identity.update import UpdateStatement

VECTORS = json.loads(files("fma_core.identity").joinpath("vectors.json").read_bytes())
CLIENT, ISSUER = bytes(range(32)), bytes(range(32, 64))
PUBLIC, ISSUING = public_key_of(CLIENT), public_key_of(ISSUER)
NOW = 1_800_000_000
CERTIFICATE = issue_certificate(
    ISSUER, PUBLIC, organisation="Hospital", label="scanner", not_before=NOW - 10, not_after=NOW + 10
)
UPDATE = UpdateStatement(
    UUID(int=7), 3, 9, 100, {"loss": 0.5}, hashlib.sha256(b"weights").digest(), bytes(16)
)

numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
)


# Vectors


@pytest.mark.parametrize("vector", VECTORS["keys"])
def test_keys_are_those_of_rfc_8032(vector) -> None:
    public_key = public_key_of(bytes.fromhex(vector["private_key"]))

    assert public_key.hex() == vector["public_key"]
    assert fingerprint(public_key) == vector["fingerprint"]


def test_the_first_vector_is_the_first_of_the_rfc() -> None:
    vector = VECTORS["keys"][0]

    assert vector["public_key"] == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert (
        sign(bytes.fromhex(vector["private_key"]), b"").hex().startswith("e5564300c360ac729086e2cc806e828a")
    )


@pytest.mark.parametrize("vector", VECTORS["refused_public_keys"], ids=lambda vector: vector["because"])
def test_public_keys_that_protect_nothing_are_refused(vector) -> None:
    with pytest.raises(InvalidKey):
        public_key_in(vector["public_key"])


@pytest.mark.parametrize("vector", VECTORS["json_digests"])
def test_digests_of_json(vector) -> None:
    assert json_digest(json.loads(vector["json"])).hex() == vector["sha256"]


@pytest.mark.parametrize("vector", VECTORS["proofs"])
def test_proofs(vector) -> None:
    private_key = bytes.fromhex(vector["private_key"])
    proof = possession.prove_key(private_key, vector["purpose"], vector["occasion"], server=vector["server"])

    assert proof.hex() == vector["signature"]
    assert is_signed(public_key_of(private_key), bytes.fromhex(vector["signed"]), proof)


@pytest.mark.parametrize("vector", VECTORS["server_names"])
def test_names_of_servers(vector) -> None:
    assert possession.server_name(vector["host"]) == vector["name"]


@pytest.mark.parametrize("vector", VECTORS["certificates"])
def test_certificates(vector) -> None:
    read = certificate_of(vector["certificate"])
    issued = issue_certificate(
        bytes.fromhex(vector["private_key"]),
        read.public_key,
        organisation=read.organisation,
        label=read.label,
        not_before=read.not_before,
        not_after=read.not_after,
    )

    assert issued == read
    assert read.encode().hex() == vector["signed"]


@pytest.mark.parametrize("vector", VECTORS["updates"])
def test_updates(vector) -> None:
    signed = UpdateStatement(
        UUID(vector["client"]),
        vector["model"],
        vector["base_aggregate"],
        vector["num_examples"],
        vector["metrics"],
        bytes.fromhex(vector["sha256"]),
        bytes.fromhex(vector["nonce"]),
    ).encode()

    assert signed.hex() == vector["signed"]
    assert sign(bytes.fromhex(vector["private_key"]), signed).hex() == vector["signature"]


# The encoding


@given(st.lists(st.binary(max_size=9), max_size=4), st.lists(st.binary(max_size=9), max_size=4))
def test_different_values_have_different_bytes(first: list[bytes], second: list[bytes]) -> None:
    assert (statement("x", *first) == statement("x", *second)) is (first == second)


def test_a_label_is_no_value() -> None:
    assert statement("ab", b"c") != statement("a", b"bc")
    assert statement("a", b"") != statement("a")


@given(json_values, json_values)
def test_different_json_has_different_digests(first, second) -> None:
    assert (json_digest(first) == json_digest(second)) is _is_equal(first, second)


@given(json_values)
def test_a_digest_does_not_depend_on_the_text(value) -> None:
    text = json.dumps(value, sort_keys=True, indent=3)

    assert json_digest(json.loads(text)) == json_digest(value)


@given(st.integers(-(2**53), 2**53))
def test_whole_numbers_are_the_same_as_doubles(number: int) -> None:
    assert (
        json_digest(number) == json_digest(float(number)) == hashlib.sha256(b"d" + _double(number)).digest()
    )


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), {1: 2}, object(), b"", "\ud800", {"\udfff": 1}]
)
def test_what_is_no_json_has_no_digest(value) -> None:
    with pytest.raises(ValueError):
        json_digest(value)


def _double(number: int) -> bytes:
    return struct.pack(">d", float(number))


def _is_equal(first, second) -> bool:
    """Equal in JSON: a truth value is no number, and 1 is 1.0."""
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_is_equal, first, second))
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_is_equal(first[name], second[name]) for name in first)
    return bool(first == second)


# Keys


@given(st.binary(min_size=32, max_size=32))
def test_keys_that_are_let_pass_are_canonical_points(public_key: bytes) -> None:
    y = int.from_bytes(public_key, "little") & (2**255 - 1)
    prime = 2**255 - 19
    d = -121665 * pow(121666, -1, prime)
    x_squared = (y * y - 1) * pow(d * y * y + 1, -1, prime) % prime
    is_point = y < prime and pow(x_squared, (prime - 1) // 2, prime) in (0, 1)
    assume(y > 1)  # of small order: those are vectors
    try:
        require_public_key(public_key)
    except InvalidKey:
        assert not is_point
    else:
        assert is_point


def test_keys_of_one_s_own_pass() -> None:
    for _ in range(50):
        require_public_key(public_key_of(new_private_key()))


@pytest.mark.parametrize(
    "text", [None, 3, "", "ab", "AB" * 32, "é" * 64, "0" * 65, f" {'a' * 63}", f"{'a' * 64}\n"]
)
def test_other_texts_are_no_keys(text) -> None:
    with pytest.raises(InvalidKey, match="64 lower-case"):
        public_key_in(text)
    with pytest.raises(InvalidSignature, match="128 lower-case"):
        signature_in(text)


def test_a_signature_cannot_be_changed_into_another_one() -> None:
    """S + L would be a second signature, where a verifier does not look at its size (RFC 8032, 5.1.7)."""
    signature = sign(CLIENT, b"x")
    order = 2**252 + 27742317777372353535851937790883648493
    twin = signature[:32] + (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")

    assert is_signed(PUBLIC, b"x", signature)
    assert not is_signed(PUBLIC, b"x", twin)


# Proofs


def test_a_proof_is_for_one_purpose_one_occasion_and_one_server() -> None:
    proof = possession.prove_key(CLIENT, possession.REGISTRATION, "key-1", server="a.org")
    possession.require_proof(PUBLIC, proof, possession.REGISTRATION, "key-1", servers=("inner", "a.org"))

    for public_key, purpose, occasion, servers in (
        (PUBLIC, possession.CLIENT, "key-1", ("a.org",)),
        (PUBLIC, possession.REGISTRATION, "key-2", ("a.org",)),
        (PUBLIC, "registrationkey", "-1", ("a.org",)),
        (PUBLIC, possession.REGISTRATION, "a.orgkey-1", ("",)),
        (ISSUING, possession.REGISTRATION, "key-1", ("a.org",)),
        (PUBLIC, possession.REGISTRATION, "key-1", ("b.org",)),
        (PUBLIC, possession.REGISTRATION, "key-1", (possession.NO_SERVER,)),
        (PUBLIC, possession.REGISTRATION, "key-1", ()),
    ):
        with pytest.raises(InvalidSignature):
            possession.require_proof(public_key, proof, purpose, occasion, servers=servers)


# Certificates


def test_a_certificate_is_read_as_it_was_issued() -> None:
    read = read_certificate(json.dumps(CERTIFICATE.to_json()))

    assert read == CERTIFICATE
    require_certificate(read, PUBLIC, issuers={ISSUING: "Hospital"}, now=NOW)


@given(st.data())
def test_a_certificate_with_any_flipped_bit_is_refused(data) -> None:
    name = data.draw(st.sampled_from(list(Certificate.__dataclass_fields__)))
    changed = replace(CERTIFICATE, **{name: _flipped(data, getattr(CERTIFICATE, name))})

    issuers = dict.fromkeys((ISSUING, changed.issuer), changed.organisation)

    with pytest.raises(InvalidCertificate):
        require_certificate(changed, changed.public_key, issuers=issuers, now=NOW)


@pytest.mark.parametrize(
    ("public_key", "issuers", "now", "reason"),
    [
        (ISSUING, {ISSUING: "Hospital"}, NOW, "is for the key"),
        (PUBLIC, {PUBLIC: "Hospital"}, NOW, "not trusted"),
        (PUBLIC, {}, NOW, "not trusted"),
        (
            PUBLIC,
            {ISSUING: "hospital"},
            NOW,
            "names the organisation 'Hospital'; its issuer .* of 'hospital'",
        ),
        (PUBLIC, {ISSUING: ""}, NOW, "names the organisation"),
        (PUBLIC, {ISSUING: "Hospital"}, NOW - 11, "not valid yet"),
        (PUBLIC, {ISSUING: "Hospital"}, NOW + 10, "has expired"),
    ],
)
def test_a_certificate_that_proves_nothing_here_is_refused(public_key, issuers, now, reason) -> None:
    with pytest.raises(InvalidCertificate, match=reason):
        require_certificate(CERTIFICATE, public_key, issuers=issuers, now=now)


def test_a_name_may_be_composed_in_two_ways() -> None:
    """Keyboards and file systems write é as one character, or as two."""
    composed, decomposed = "Charit\u00e9", "Charite\u0301"
    for written, known in ((composed, decomposed), (decomposed, composed)):
        certificate = issue_certificate(
            ISSUER, PUBLIC, organisation=written, not_before=NOW - 10, not_after=NOW + 10
        )

        require_certificate(certificate, PUBLIC, issuers={ISSUING: known}, now=NOW)


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_garbage_is_no_certificate(garbage) -> None:
    with pytest.raises(InvalidCertificate):
        read_certificate(garbage)


@pytest.mark.parametrize(
    "members",
    [
        {"format": 2},
        {"format": True},
        {"format": 1.0},
        {"organisation": "  "},
        {"issuer": None},
        {"issuer": VECTORS["refused_public_keys"][0]["public_key"]},
        {"public_key": "ab"},
        {"organisation": ""},
        {"organisation": 3},
        {"organisation": "a" * 256},
        {"label": "a\nb"},
        {"label": "\ud800"},
        {"not_before": "now"},
        {"not_before": True},
        {"not_before": -1},
        {"not_after": 1.5},
        {"not_after": 253_402_300_800},
        {"not_after": 2**70},
        {"not_after": NOW - 10},
        {"signature": "00"},
        {"more": 1},
    ],
)
def test_a_certificate_with_other_members_is_refused(members) -> None:
    with pytest.raises(InvalidCertificate):
        certificate_of({**CERTIFICATE.to_json(), **members})


@pytest.mark.parametrize(
    "text",
    ["[" * 10_000, "{}" + " " * 20_000, json.dumps(CERTIFICATE.to_json())[:-1] + ', "label": "other"}'],
)
def test_texts_that_two_readers_may_read_differently_are_refused(text: str) -> None:
    with pytest.raises(InvalidCertificate):
        read_certificate(text)


# Updates


@given(st.data())
def test_an_update_with_any_flipped_bit_is_refused(data) -> None:
    signature = sign(CLIENT, UPDATE.encode())
    name = data.draw(st.sampled_from(list(UpdateStatement.__dataclass_fields__)))
    changed = replace(UPDATE, **{name: _flipped(data, getattr(UPDATE, name))})

    assert is_signed(PUBLIC, UPDATE.encode(), signature)
    assert not is_signed(PUBLIC, changed.encode(), signature)


def test_no_base_is_not_the_initial_model() -> None:
    assert replace(UPDATE, base_aggregate=None).encode() != replace(UPDATE, base_aggregate=0).encode()


# PEM


@pytest.mark.parametrize("passphrase", [None, "correct horse", "ü"])
def test_a_private_key_survives_its_file(passphrase) -> None:
    assert pem.read_private_key(pem.private_key_pem(CLIENT, passphrase).encode(), passphrase) == CLIENT


@pytest.mark.parametrize(
    ("written_with", "read_with", "reason"),
    [
        ("right", "wrong", "passphrase is wrong"),
        ("right", None, "needs a passphrase"),
        (None, "any", "has no passphrase"),
    ],
)
def test_a_wrong_passphrase_is_refused(written_with, read_with, reason) -> None:
    with pytest.raises(InvalidKey, match=reason):
        pem.read_private_key(pem.private_key_pem(CLIENT, written_with).encode(), read_with)


@pytest.mark.parametrize("passphrase", ["x" * 1024, "ü" * 512, "", "\ud800"])
def test_a_passphrase_that_cannot_be_used_is_told(passphrase) -> None:
    with pytest.raises(InvalidKey, match="1 to 1023 bytes"):
        pem.private_key_pem(CLIENT, passphrase)
    assert pem.read_private_key(pem.private_key_pem(CLIENT, "x" * 1023).encode(), "x" * 1023) == CLIENT


@given(st.binary(max_size=300), st.none() | st.text(max_size=5))
def test_garbage_is_no_private_key(garbage: bytes, passphrase) -> None:
    with pytest.raises(InvalidKey):
        pem.read_private_key(garbage, passphrase)


def test_a_key_of_another_kind_is_refused() -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

    other = generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )

    with pytest.raises(InvalidKey, match="another kind"):
        pem.read_private_key(other)


@given(st.data())
def test_a_damaged_file_gives_an_error_or_a_key(data) -> None:
    content = bytearray(pem.private_key_pem(CLIENT).encode())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[at]))
    try:
        read = pem.read_private_key(bytes(content))
    except FMAError:
        return
    assert len(read) == 32


def _flipped(data, value):
    """The value with one bit, or one character, changed."""
    match value:
        case bytes():
            bit = data.draw(st.integers(0, len(value) * 8 - 1))
            changed = bytearray(value)
            changed[bit // 8] ^= 1 << (bit % 8)
            return bytes(changed)
        case UUID():
            return UUID(bytes=_flipped(data, value.bytes))
        case int():
            return value ^ (1 << data.draw(st.integers(0, 52)))
        case str():
            at, character = data.draw(st.integers(0, len(value) - 1)), data.draw(st.characters(codec="utf-8"))
            assume(character != value[at])
            return value[:at] + character + value[at + 1 :]
        case dict():
            return {name: inner + 2**-20 for name, inner in value.items()}
    raise AssertionError(value)
