"""The results of a benchmark as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from goal import Goal


def markdown(
    program: str, facts: Mapping[str, Any], notes: Sequence[str], tables: Sequence[str], goals: Sequence[Goal]
) -> str:
    """The page of results."""
    said = ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)
    lines = ["# Results", "", f"Written by `{program}`; [how to read them](README.md).", ""]
    lines += [f"{sentence}.\n" for sentence in (said, *notes)]
    lines += ["## Goals", "", "| | way | found | goal | |", "|---|---|---|---|---|"]
    lines += [goal.to_markdown() for goal in goals]
    lines += ["", "## All ways", ""]
    lines += [f"```text\n{text}\n```\n" for text in tables]
    return "\n".join(lines).rstrip() + "\n"
