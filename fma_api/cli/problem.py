"""Errors that end a command with one sentence for the person who typed it, and exit code 1."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from django.core.exceptions import ImproperlyConfigured
from rich.console import Console
from rich.markup import escape


class Problem(Exception):
    """Something that the person can put right; the message says how."""


@contextmanager
def exit_with_sentence() -> Iterator[None]:
    """Print what a person can put right, without a traceback, and exit with code 1."""
    try:
        yield
    except (Problem, ImproperlyConfigured) as problem:
        console = Console(stderr=True, soft_wrap=True)
        for line in str(problem).splitlines():
            console.print(f"[bold red]fma:[/bold red] {escape(line)}", highlight=False)
        sys.exit(1)
