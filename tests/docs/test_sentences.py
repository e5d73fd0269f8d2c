"""Docstrings begin with a verb or a noun phrase; a first line that begins with "What" can hardly be read alone."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.docs.page import REPOSITORY

FOLDERS = ("fma_*", ".ci", "benchmarks", "examples", "tests")
BEGINNING = re.compile(r"\s*(?:What|Who|Whom|Whose|Which|That|Those|Of)\b", re.IGNORECASE)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_no_docstring_begins_with_a_relative_pronoun_or_of() -> None:
    names = subprocess.run(
        ["git", "ls-files", "-z", "--", *(f"{folder}/*.py" for folder in FOLDERS)],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")[:-1]

    assert len(names) > 300
    faults = [
        f"{name}:{line}: {sentence}"
        for name in names
        for line, sentence in faults_in((REPOSITORY / name).read_text())
    ]
    assert faults == [], "begin with a verb or a noun phrase:\n" + "\n".join(faults)


def test_docstrings_of_modules_classes_and_functions_are_read() -> None:
    source = '"""Of one."""\nclass A:\n    """A class."""\n    async def f():\n        """\n        what it is"""\n'

    assert list(faults_in(source)) == [(1, "Of one."), (5, "what it is")]


def faults_in(source: str) -> Iterator[tuple[int, str]]:
    """The line and the first line of each docstring that begins with one of the words."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and BEGINNING.match(docstring := ast.get_docstring(node) or ""):
            yield node.body[0].lineno, docstring.partition("\n")[0]
