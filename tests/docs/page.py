"""A Markdown page of the repository, as what in it can be checked: code blocks, links and headings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *(
            REPOSITORY / name
            for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "RELEASING.md", "SECURITY.md")
        ),
        *REPOSITORY.glob("docs/**/*.md"),
        *REPOSITORY.glob("examples/**/*.md"),
        *REPOSITORY.glob("benchmarks/*.md"),
    ]
)

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What stands right before a block that is the content of a file: "`pyproject.toml`:"
FILE = re.compile(r"`([\w./-]+)`:\n\n\Z")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|src(?:set)?=\"([^\"]+)\"")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced code block; `line` is where its first line stands in the page, `file` the file that it is to be."""

    language: str
    text: str
    line: int
    file: str | None = None


@dataclass(frozen=True)
class Command:
    """A line of a console block after its `$ `, and what the page says that it prints (nothing: anything)."""

    text: str
    output: tuple[str, ...]


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(
            found[1],
            found[2],
            text.count("\n", 0, found.start(2)) + 1,
            file=named[1]
            if (named := FILE.search(text, max(0, found.start() - 80), found.start()))
            else None,
        )
        for found in FENCE.finditer(text)
    ]


def commands_of(block: Block) -> list[Command]:
    commands: list[Command] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            commands.append(Command(line[2:], ()))
        elif not commands:
            raise AssertionError(f"line {block.line}: a console block begins with a command after `$ `")
        elif commands[-1].text.endswith("\\"):
            commands[-1] = Command(f"{commands[-1].text}\n{line}", ())
        else:
            commands[-1] = Command(commands[-1].text, (*commands[-1].output, line))
    return commands


def links_of(page: Path) -> list[str]:
    return [found[1] or found[2] for found in LINK.finditer(_prose(page))]


def anchors_of(page: Path) -> set[str]:
    """The fragments that a link may name, as GitHub makes them of headings."""
    titles = (re.sub(r"[^\w\- ]", "", found[1].lower()) for found in HEADING.finditer(_prose(page)))
    return {title.replace(" ", "-") for title in titles}


def _prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())
