"""Form fields of JSON: indented, and refused with what must hold where the record could not keep it."""

import json
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from fma_django.errors import InvalidValue
from fma_django.record.json_values import require_storable


class StorableJSONField(forms.JSONField):
    """A field of JSON that the record can keep; any other text is shown again as it came."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "encoder": _IndentedEncoder, "decoder": _StorableDecoder})

    def to_python(self, value: Any) -> Any:
        try:
            return super().to_python(value)
        except ValidationError as error:
            raise ValidationError(f"This must be JSON: {_fault_of(value)}.", code="invalid") from error


class _IndentedEncoder(json.JSONEncoder):
    """For form fields, which offer no other way to have their JSON indented."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "indent": 2})


class _StorableDecoder(json.JSONDecoder):
    """Finds fault with JSON that nobody can keep, as with what is no JSON."""

    def decode(self, s: str, *args: Any) -> Any:
        try:
            value = super().decode(s, *args)
            require_storable(value, field="")
        except json.JSONDecodeError:
            raise
        except InvalidValue as error:
            raise json.JSONDecodeError(f"it {error.message}", s, 0) from None
        except RecursionError:
            raise json.JSONDecodeError("it is nested too deeply", s, 0) from None
        except ValueError:  # Python's own limit of digits
            raise json.JSONDecodeError("it may not hold integers beyond 64 bits", s, 0) from None
        return value


def _fault_of(text: Any) -> str:
    try:
        _StorableDecoder().decode(text)
    except json.JSONDecodeError as error:
        return error.msg if error.pos == 0 else f"{error.msg} at line {error.lineno}, column {error.colno}"
    return "this text is none"
