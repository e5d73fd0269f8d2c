"""Mutations of valid inputs: of JSON by its grammar, of texts, queries and bytes.

The generator of an input is the only source of chance: an input is known by its seed, its target and its number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring, encode_basestring_ascii
from random import Random
from typing import Any
from urllib.parse import quote

NUMBERS = (
    "0", "-0", "-0.0", "1", "-1", "2", "1.0", "1e3", "1E+2", "1e20", "1e23", "-1e19", "1e-400", "5e-324", "3.5e38",
    "1.7976931348623157e308", "4.734816509414069e16", "9007199254740993", "2147483648", "9223372036854775807",
    "9223372036854775808", "-9223372036854775809", "18446744073709551616", "9" * 40,
)  # fmt: skip
NO_NUMBERS = (
    "NaN", "Infinity", "-Infinity", "1e400", "-1e400", "9" * 400, "0x10", "01", "+1", "1_0", ".5", "1.", "1e", "--1",
)  # fmt: skip
TEXTS = (
    "", " ", "a", "\0", "a\0b", "\ud800", "\udfff\ud800", "\U0010ffff", "\u202eabc", "\u200b", "\ufeff", "\u2028",
    "e\u0301", "ſ", "İ", "ß", "٣", "²", "=1+1", "=cmd|' /C calc'!A0", "＝1", "+1", "@x", "-1", "\n=1", "\t=1",
    "<script>alert(1)</script>", "' OR 1=1 --", '"; DROP TABLE x; --', "../../etc/passwd", "%00", "%", "%zz", "null",
    "None", "true", "nan", "1e400", "__proto__", "__metadata__", "{}", "[]", "{0}", "%s", "\\u0000", "\r\nX: y",
    "\x7f", "\x1b[31m", "a,b", "*", "**", "?", "[", "(a+)+$", "w", "mean", "1", "-1", "0", "x" * 256, "x" * 3000,
    "9" * 40, "9" * 5000, "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-02-30", "P1D",
    "00000000-0000-0000-0000-000000000000", "file:///etc/passwd", "http://127.0.0.1/", "a@b", "a@b@c",
)  # fmt: skip
BYTES = (
    b"\0", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xc0\x80", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\r\n", b"\n\n", b"\r", b'"', b"\\", b"\\u0000", b"\\ud800", b"{",
    b"}", b"[", b"]", b",", b":", b" ", b"\t", b"NaN", b"1e400", b"-0", b"null", b"\x80", b"\x7f", b"%00", b"\0" * 8,
    b"\xff" * 8, b"\x28\xb5\x2f\xfd",
)  # fmt: skip
DEPTHS = (2, 10, 64, 65, 127, 128, 300, 1023, 1024, 1025, 3000)


@dataclass(frozen=True)
class Raw:
    """A piece of JSON text, whether it is JSON or not."""

    text: str


def one_of(random: Random, *makers: tuple[float, Callable[[], Any]]) -> Any:
    """The value of one of these functions, each as often as its weight says."""
    return random.choices([make for _, make in makers], [weight for weight, _ in makers])[0]()


def odd_leaf(random: Random) -> Any:
    """A value of JSON that readers do not expect."""
    return one_of(
        random,
        (6, lambda: Raw(random.choice(NUMBERS))),
        (1, lambda: Raw(random.choice(NO_NUMBERS))),
        (5, lambda: random.choice(TEXTS)),
        (1, lambda: None),
        (1, lambda: random.choice([True, False])),
        (1, lambda: random.choice([[], {}, [[]], {"": {}}, [None], {"a": None}])),
        (0.3, lambda: _nested(random)),
        (1, lambda: random.uniform(-2, 2) * 10.0 ** random.randint(-5, 40)),
        (1, lambda: random.randint(-(2**70), 2**70)),
    )


def _nested(random: Random) -> Raw:
    depth = random.choice(DEPTHS)
    opened, closed = random.choice([("[", "]"), ('{"a":', "}")])
    return Raw(opened * depth + random.choice(["1", "", "[]"]) + closed * depth)


def mutated_json(random: Random, value: Any) -> Any:
    """A copy of the value with one to three changes somewhere in it."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        value = _changed_somewhere(random, value)
    return value


def _changed_somewhere(random: Random, value: Any) -> Any:
    # The deeper a place, the fewer there are above it: go down more often than not.
    if isinstance(value, dict) and value and random.random() < 0.75:
        name = random.choice(list(value))
        return {**value, name: _changed_somewhere(random, value[name])}
    if isinstance(value, list) and value and random.random() < 0.75:
        index = random.randrange(len(value))
        return [*value[:index], _changed_somewhere(random, value[index]), *value[index + 1 :]]
    return _changed(random, value)


def _changed(random: Random, value: Any) -> Any:
    if isinstance(value, dict) and value:
        names = list(value)
        name, other = random.choice(names), random.choice(names)
        return one_of(
            random,
            (2, lambda: {key: member for key, member in value.items() if key != name}),
            (2, lambda: {**value, str(random.choice(TEXTS)): odd_leaf(random)}),
            (2, lambda: {**value, name: value[other]}),
            (1, lambda: {str(random.choice(TEXTS)) if key == name else key: value[key] for key in names}),
            (1, lambda: _Pairs([*value.items(), (name, odd_leaf(random))])),
            (1, lambda: list(value.values())),
            (1, lambda: odd_leaf(random)),
            (0.5, lambda: {f"{key}{number}": value[key] for key in names for number in range(5)}),
        )
    if isinstance(value, list) and value:
        index = random.randrange(len(value))
        return one_of(
            random,
            (2, lambda: value[:index] + value[index + 1 :]),
            (2, lambda: [*value, odd_leaf(random)]),
            (2, lambda: value * random.choice((2, 3, 9))),
            (1, lambda: [value]),
            (1, lambda: value[::-1]),
            (1, lambda: {str(number): item for number, item in enumerate(value)}),
            (1, lambda: odd_leaf(random)),
        )
    if isinstance(value, str) and value and random.random() < 0.4:
        return mutated_text(random, value)
    if type(value) in (int, float) and random.random() < 0.4:
        return random.choice([value + 1, value - 1, -value, value * 2, value / 3, value * 1e30, int(value)])
    return odd_leaf(random)


@dataclass(frozen=True)
class _Pairs:
    """The members of an object, some of them twice."""

    members: list[tuple[str, Any]]


def json_text(random: Random, value: Any) -> bytes:
    """The value as JSON, with the pieces that are none as they are."""
    quoted = encode_basestring_ascii if random.random() < 0.5 else encode_basestring
    return _text(value, quoted).encode("utf-8", "surrogatepass")


def _text(value: Any, quoted: Callable[[str], str]) -> str:
    kind = type(value)
    if kind is str:
        return quoted(value)
    if kind is Raw:
        return str(value.text)
    if kind is dict or kind is _Pairs:
        pairs = value.items() if kind is dict else value.members
        return "{" + ",".join([f"{quoted(name)}:{_text(item, quoted)}" for name, item in pairs]) + "}"
    if kind is list:
        return "[" + ",".join([_text(item, quoted) for item in value]) + "]"
    if kind is int or kind is float:
        return repr(value)
    return {None: "null", True: "true", False: "false"}[value]


def fuzzed_json(random: Random, value: Any) -> bytes:
    """Mostly JSON with another meaning, at times bytes that are no JSON."""
    text = json_text(random, mutated_json(random, value))
    return mutated_bytes(random, text) if random.random() < 0.15 else text


def mutated_text(random: Random, text: str) -> str:
    """The text with a change: a character more, less or another one, or half of it."""
    at = random.randrange(len(text) + 1)
    return one_of(
        random,
        (2, lambda: text[:at] + random.choice(TEXTS) + text[at:]),
        (2, lambda: text[:at] + text[at + 1 :]),
        (1, lambda: text[:at]),
        (1, lambda: text + text),
        (1, lambda: text.upper() if text != text.upper() else text.lower()),
        (1, lambda: text[:at] + chr(random.choice((random.randrange(0xD800), 0x1F600))) + text[at + 1 :]),
        (2, lambda: random.choice(TEXTS)),
        (1, lambda: random.choice(NUMBERS + NO_NUMBERS)),
    )


def mutated_bytes(random: Random, data: bytes) -> bytes:
    """The bytes after one to three changes: flipped, cut, repeated, swapped, or with odd ones among them."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        data = _changed_bytes(random, data)
    return data


def _changed_bytes(random: Random, data: bytes) -> bytes:
    first, last = sorted((random.randrange(len(data) + 1), random.randrange(len(data) + 1)))
    flipped = bytes([data[first] ^ (1 << random.randrange(8))]) if first < len(data) else b""
    return one_of(
        random,
        (4, lambda: data[:first] + flipped + data[first + 1 :]),
        (2, lambda: data[:first] + random.choice(BYTES) + data[first:]),
        (2, lambda: data[:first] + random.choice(BYTES) + data[first + 1 :]),
        (1, lambda: data[:first]),
        (1, lambda: data[:first] + data[last:]),
        (1, lambda: data[:last] + data[first:]),
        (1, lambda: data[last:] + data[:first]),
        (1, lambda: data + random.choice(BYTES) * random.choice((1, 100))),
    )


Query = list[tuple[str, str]]


def mutated_query(random: Random, query: Query) -> Query:
    """The parameters of a query with some changed, said twice, left out, or misspelt."""
    changed = list(query)
    for _ in range(random.choice((1, 1, 2))):
        if not changed:
            return [(random.choice(TEXTS), random.choice(TEXTS))]
        at = random.randrange(len(changed))
        changed[at : at + 1] = _changed_pair(random, *changed[at])
    return changed


def _changed_pair(random: Random, name: str, value: str) -> Query:
    return one_of(
        random,
        (6, lambda: [(name, random.choice(TEXTS))]),
        (4, lambda: [(name, random.choice(NUMBERS + NO_NUMBERS))]),
        (3, lambda: [(name, mutated_text(random, value))]),
        (2, lambda: [(name, value), (name, random.choice(TEXTS))]),
        (1, list),
        (1, lambda: [(mutated_text(random, name), value)]),
    )


def query_text(random: Random, query: Query) -> str:
    """The query as a URL has it, at times without the escapes that it needs."""
    if random.random() < 0.9:
        said = [tuple(quote(part.encode("utf-8", "surrogatepass")) for part in pair) for pair in query]
        return "&".join(f"{name}={value}" for name, value in said)
    text = random.choice(["&", "&&", ";"]).join(f"{name}={value}" for name, value in query)
    # As a server gives it: the bytes that cannot stand in the head of a request do not come this far.
    return "".join(character for character in text if character.isascii() and character.isprintable())


def some(random: Random, values: Sequence[Any]) -> list[Any]:
    """Some of these, in their order."""
    return [value for value in values if random.random() < 0.5]
