"""Check the subjects and bodies of the commits since the last tag: `python .ci/commits.py`.

Outside a git repository, and in a clone whose history is too short to know where to begin, nothing is checked.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]
START = "01657ba"  # the rules hold for what came after it
LONGEST_SUBJECT = 72
SUBJECT = re.compile(r"(?P<area>[a-z][\w/.-]*): (?P<word>\S+)")
VERB = re.compile(r"[A-Z][a-z]+(-[a-z]+)*")
NO_VERB = re.compile(
    "A|An|The|This|That|These|Those|What|Who|Whose|Which|When|Where|Why|How|Of|For|In|On|At|To|From|By|With|Without|"
    "No|Not|Only|And|Or|But|If|It|Its|We|You|They|One|Two|Three|Some|Any|Each|Every|All|New|Old|More|Less|Small|Large"
)
INFLECTED = re.compile(r"(?<!e)ed$|ing$|(?<![su])s$")
VERBS_THAT_LOOK_INFLECTED = frozenset({"Alias", "Bias", "Bring", "Embed", "Ping", "Shed", "String"})
PROSE = frozenset({".md", ".png", ".svg", ".txt"})
TRAILER = re.compile(r"[A-Z][A-Za-z-]+-by: ")


class CannotCheck(Exception):
    """There is no history to check; the message says why."""


class Commit(NamedTuple):
    name: str
    subject: str
    body: str
    files: tuple[str, ...]


def main() -> int:
    try:
        range_ = revisions()
        commits = list(read(range_))
    except CannotCheck as reason:
        print(f"Commit subjects are not checked: {reason}")
        return 0
    bad = {commit: faults for commit in commits if (faults := list(faults_of(commit)))}
    for commit, faults in bad.items():
        print(f'{commit.name} "{commit.subject}"', *faults, sep="\n    ", file=sys.stderr)
    if bad:
        print(
            f"Reword them with `git rebase --interactive`, see CONTRIBUTING.md ({' '.join(range_)})",
            file=sys.stderr,
        )
        return 1
    print(f"{len(commits)} commits since {range_[-1].lstrip('^')}: each subject and body is as it must be")
    return 0


def revisions() -> list[str]:
    """The commits to check, in git's words: not in the last tag, and not before the rules."""
    if Path(_git("rev-parse", "--show-toplevel")).resolve() != REPOSITORY:
        raise CannotCheck("this folder is not a git repository of its own")
    try:
        tag = [_git("describe", "--tags", "--abbrev=0")]
    except CannotCheck:
        tag = []
    try:
        _git("merge-base", "--is-ancestor", START, "HEAD")
        start = [START]
    except CannotCheck:
        start = []
    if not tag and not start:
        raise CannotCheck(f"the history here has no tag and does not reach back to {START}")
    return ["HEAD", *(f"^{known}" for known in start + tag)]


def read(range_: list[str]) -> Iterator[Commit]:
    """The commits from the newest to the oldest, without merges."""
    log = _git("log", "--no-merges", "-z", "--name-only", "--format=%x1e%h%x1f%s%x1f%b%x1f", *range_)
    for record in log.split("\x1e")[1:]:
        name, subject, body, files = record.split("\x1f")
        yield Commit(name, subject, body, tuple(filter(None, re.split(r"[\0\n]", files))))


def faults_of(commit: Commit) -> Iterator[str]:
    """The rules that the commit breaks, each with the words or the file that break it."""
    parts = SUBJECT.match(commit.subject)
    if parts is None:
        yield 'the subject must be "area: Verb …", the area in lower case'
    elif not _is_imperative(parts["word"]):
        yield f'a verb as in "Add", not "Adds", "Added" or "adding", must follow the area; found "{parts["word"]}"'
    if len(commit.subject) > LONGEST_SUBJECT:
        yield f"the subject must have {LONGEST_SUBJECT} characters at most; found {len(commit.subject)}"
    if commit.subject.endswith("."):
        yield "the subject must not end with a full stop"
    code = [file for file in commit.files if not file.startswith("docs/") and Path(file).suffix not in PROSE]
    if code and not commit.subject.startswith("style: ") and not _says_why(commit.body):
        yield f"a body must say why, as code changes ({code[0]}); found none"


def _is_imperative(word: str) -> bool:
    if not VERB.fullmatch(word) or NO_VERB.fullmatch(word):
        return False
    return word in VERBS_THAT_LOOK_INFLECTED or not INFLECTED.search(word)


def _says_why(body: str) -> bool:
    return any(line.strip() and not TRAILER.match(line) for line in body.splitlines())


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise CannotCheck("git is not installed") from None
    except subprocess.CalledProcessError as error:
        raise CannotCheck(error.stderr.strip() or f"git {arguments[0]} failed") from error
    return done.stdout.rstrip("\n")


if __name__ == "__main__":
    sys.exit(main())
