"""JSON for reading: indented, and cut where nobody reads on."""

import json

from django.utils.html import format_html

MAX_LINES = 300


def pretty_json(value: object) -> str:
    if value is None:
        return "–"
    lines = json.dumps(value, indent=2, ensure_ascii=False).splitlines()
    shown = "\n".join(lines[:MAX_LINES])
    if len(lines) > MAX_LINES:
        shown += f"\n… and {len(lines) - MAX_LINES} more lines; the API gives all of it"
    return format_html(
        '<pre tabindex="0" style="white-space: pre-wrap; overflow-wrap: anywhere">{}</pre>', shown
    )


def one_line(value: object, *, length: int = 60) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= length else f"{text[: length - 1]}…"
