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
MAY_BEGIN = re.compile(rf"[\"']{BEGINNING.pattern}", re.IGNORECASE)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@pytest.mark.untraced
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


def test_docstrings_of_modules_classes_functions_and_variables_are_read() -> None:
    source = (
        '"""Of one."""\nclass A:\n    """A class."""\n    async def f():\n        """\n        what it is"""\n'
        'a = 1\n"""Who a is."""\nb: int = 2\n"""That of b."""\n'
    )

    assert sorted(faults_in(source)) == [
        (1, "Of one."),
        (5, "what it is"),
        (8, "Who a is."),
        (10, "That of b."),
    ]


def faults_in(source: str) -> Iterator[tuple[int, str]]:
    """The line and the first line of each docstring that begins with one of the words, those of variables included."""
    if not MAY_BEGIN.search(source):
        return  # parsing all files takes some seconds
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED):
            for before, each in zip([None, *node.body], node.body, strict=False):
                if not isinstance(before, ast.Assign | ast.AnnAssign | None):
                    continue
                match each:
                    case ast.Expr(ast.Constant(str(docstring))) if BEGINNING.match(docstring):
                        yield each.lineno, docstring.strip().partition("\n")[0]
