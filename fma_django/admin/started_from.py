"""A hidden field by which a form carries the values it was opened with, so that a stale form overwrites nothing."""

import hashlib
import json
from typing import Any

from django import forms

FIELD = "started_from"


class _Carried(forms.CharField):
    def has_changed(self, initial: Any, data: Any) -> bool:
        return False  # it is no change of the row


class StartedFromForm(forms.ModelForm):  # type: ignore[type-arg]  # Django's is generic to the type checker only
    """A form of an existing row that refuses to save when a field has another value than when the form was opened.

    Digests are carried, not values: a JSON Schema has kilobytes. A form without the field, sent by a program, is taken.
    """

    started_from = _Carried(widget=forms.HiddenInput, required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial[FIELD] = json.dumps({name: _digest(value) for name, value in self._stored().items()})

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        changed = self._changed_meanwhile((cleaned or {}).get(FIELD, ""))
        for name in changed:
            self.add_error(name, f"somebody else changed this meanwhile; it is now {self._now(name)}")
        if changed:
            self.add_error(None, "Nothing was saved. Load the page again, and make your change there.")
        return cleaned

    def _stored(self) -> dict[str, Any]:
        """The values of the row as the form would send them."""
        return {
            name: field.prepare_value(self.get_initial_for_field(field, name))
            for name, field in self.fields.items()
            if name != FIELD
        }

    def _changed_meanwhile(self, carried: str) -> list[str]:
        try:
            opened_with = json.loads(carried)
        except (ValueError, RecursionError):  # no page sends such a thing
            return []
        if not isinstance(opened_with, dict):
            return []
        return [
            name
            for name, value in self._stored().items()
            if name in opened_with and opened_with[name] != _digest(value)
        ]

    def _now(self, name: str) -> str:
        field, value = self.fields[name], self._stored()[name]
        if isinstance(field, forms.ModelChoiceField) and field.queryset is not None:
            rows = field.queryset.filter(pk__in=value if isinstance(value, list) else [value])
            value = ", ".join(sorted(str(row) for row in rows))
        return str(value)[:500] if value not in ("", None) else "empty"


def _digest(value: Any) -> str:
    if isinstance(value, list | tuple | set):  # rows, in the order in which a database gave them
        value = sorted(str(one) for one in value)
    return hashlib.sha256(str("" if value is None else value).encode()).hexdigest()[:16]
