"""`.ci/commits.py`, which `make lint` runs: the rules of CONTRIBUTING.md for commits, in real repositories."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "commits.py"
WHY = "The old one was slower by a half."

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


class History:
    """A git repository that holds the script, and a tag after its first commit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            **{f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }
        (folder / ".ci").mkdir(parents=True)
        shutil.copy(SCRIPT, folder / ".ci")

    def git(self, *arguments: str) -> None:
        subprocess.run(
            ["git", *arguments], cwd=self.folder, env=self._variables, check=True, capture_output=True
        )

    def begin(self) -> None:
        self.git("init", "--initial-branch=main")
        self.commit("Before all rules", file="README.md")

    def commit(self, message: str, *, file: str) -> None:
        path = self.folder / file
        path.parent.mkdir(exist_ok=True)
        with path.open("a") as text:
            text.write(message)
        self.git("add", file)
        self.git("commit", "--message", message)

    def check(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, self.folder / ".ci" / "commits.py"],
            env=self._variables,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def untagged(tmp_path: Path) -> History:
    history = History(tmp_path / "repository")
    history.begin()
    return history


@pytest.fixture
def history(untagged: History) -> History:
    untagged.git("tag", "v1.0")
    return untagged


@pytest.mark.parametrize(
    ("message", "file"),
    [
        (f"core: Fold twice as fast\n\n{WHY}", "core.py"),
        (f"fma_core/engine: Pass rows by name\n\n{WHY}", "core.py"),
        (f"storage: Embed what is small\n\n{WHY}", ".ci/run"),
        ("docs: Name the limits", "docs/limits.md"),
        ("docs: Draw the slices", "docs/draw.py"),
        ("changelog: Say what is new", "CHANGELOG.md"),
        ("lock: Refresh", "constraints.txt"),
        ("style: Keep to the width", "core.py"),
        (f"core: {'Fold' + 62 * 'o'}\n\n{WHY}", "core.py"),
    ],
)
def test_a_commit_that_keeps_the_rules_passes(history: History, message: str, file: str) -> None:
    history.commit(message, file=file)

    checked = history.check()

    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout == "1 commits since v1.0: each subject and body is as it must be\n"


@pytest.mark.parametrize(
    ("message", "file", "fault"),
    [
        ("Fold twice as fast", "a.md", 'the subject must be "area: Verb …", the area in lower case'),
        ("Core: Fold twice as fast", "a.md", 'the subject must be "area: Verb …", the area in lower case'),
        ("core: fold twice as fast", "a.md", 'found "fold"'),
        ("core: Folds twice as fast", "a.md", 'found "Folds"'),
        ("core: Folded twice as fast", "a.md", 'found "Folded"'),
        ("core: Folding twice as fast", "a.md", 'found "Folding"'),
        ("core: What folds fast", "a.md", 'found "What"'),
        ("core: The fold is fast", "a.md", 'found "The"'),
        ("core: JSON is faster", "a.md", 'found "JSON"'),
        ("core: Fold twice as fast.", "a.md", "the subject must not end with a full stop"),
        (f"core: Fold {62 * 'o'}", "a.md", "the subject must have 72 characters at most; found 73"),
        ("core: Fold fast", "core.py", "a body must say why, as code changes (core.py); found none"),
        ("core: Fold fast\n\nSigned-off-by: x <x@y>", "core.py", "a body must say why"),
    ],
)
def test_a_commit_that_breaks_a_rule_is_named_with_what_must_hold(
    history: History, message: str, file: str, fault: str
) -> None:
    history.commit(message, file=file)

    checked = history.check()

    assert checked.returncode == 1
    assert message.split("\n\n")[0].replace("\n", " ") in checked.stderr
    assert fault in checked.stderr


def test_only_commits_since_the_last_tag_are_checked(history: History) -> None:
    history.commit("What came before", file="core.py")
    history.git("tag", "v1.1")

    assert history.check().returncode == 0


def test_merges_are_not_checked(history: History) -> None:
    history.git("switch", "--create", "side")
    history.commit("docs: Name the limits", file="side.md")
    history.git("switch", "main")
    history.commit("docs: Name the goals", file="main.md")
    history.git("merge", "--no-ff", "--message", "Merge branch 'side'", "side")

    checked = history.check()

    assert checked.returncode == 0
    assert checked.stdout.startswith("2 commits")


def test_without_a_tag_and_the_first_commit_of_the_rules_nothing_is_checked(untagged: History) -> None:
    checked = untagged.check()

    assert checked.returncode == 0
    assert checked.stdout == (
        "Commit subjects are not checked: the history here has no tag and does not reach back to 01657ba\n"
    )


def test_a_shallow_clone_without_its_tag_passes(history: History, tmp_path: Path) -> None:
    history.commit("What came last", file="core.py")
    shallow = History(tmp_path / "shallow")
    shutil.rmtree(shallow.folder)
    history.git("clone", "--no-tags", "--depth=1", history.folder.as_uri(), str(shallow.folder))
    (shallow.folder / ".ci").mkdir()
    shutil.copy(SCRIPT, shallow.folder / ".ci")

    checked = shallow.check()

    assert checked.returncode == 0
    assert "does not reach back" in checked.stdout


@pytest.mark.parametrize("outer_is_a_repository", [True, False])
def test_outside_a_repository_of_its_own_nothing_is_checked(
    history: History, tmp_path: Path, outer_is_a_repository: bool
) -> None:
    unpacked = History((history.folder if outer_is_a_repository else tmp_path) / "unpacked")

    checked = unpacked.check()

    assert checked.returncode == 0
    assert checked.stdout.startswith("Commit subjects are not checked: ")
