"""JSON columns that give back the numbers that were put in, on every database.

PostgreSQL's jsonb keeps decimal numbers, and forgets how they were written: it gives the float 1e20 back as the integer
100000000000000000000, which our JSON writer refuses, and 4.734816509414069e+16 as 47348165094140690, another number.
"""

import json
import re
from typing import Any

from django.db import models

LEAST_INTEGER, MOST_INTEGER = -(2**63), 2**64 - 1
# A text of JSON, which is left alone, or a float with an exponent that makes a whole number of it.
TEXT_OR_LARGE_FLOAT = re.compile(r'"(?:[^"\\]|\\.)*"|(-?[0-9.]+e\+[0-9]+)')


class StoredEncoder(json.JSONEncoder):
    """Writes large floats with all their digits and `.0`, so that jsonb takes them for no integers."""

    def encode(self, o: Any) -> str:
        text = super().encode(o)
        return TEXT_OR_LARGE_FLOAT.sub(_in_full, text) if "e+" in text else text


class StoredDecoder(json.JSONDecoder):
    """Reads integers beyond 64 bits as floats: none is accepted, but rows of before `StoredEncoder` hold some."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "parse_int": _number})


class StoredJson(models.JSONField):
    """A JSONField that is written by `StoredEncoder` and read by `StoredDecoder`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "encoder": StoredEncoder, "decoder": StoredDecoder})

    def deconstruct(self) -> Any:
        # A JSONField to migrations: the column is the same.
        name, _, args, options = super().deconstruct()
        del options["encoder"], options["decoder"]
        return name, "django.db.models.JSONField", args, options


def _in_full(match: re.Match[str]) -> str:
    return match[0] if match[1] is None else f"{float(match[1]):.1f}"


def _number(digits: str) -> int | float:
    if len(digits) > 20:  # int takes quadratic time, and nothing beyond 4300 digits
        return float(digits)
    value = int(digits)
    return value if LEAST_INTEGER <= value <= MOST_INTEGER else float(value)
