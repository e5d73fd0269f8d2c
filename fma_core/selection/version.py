"""Versions in the order of PEP 440, without the package `packaging`: the core depends on numpy only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

# Versions of PEP 440 without epochs; semantic versions ("1.2.0-beta.3+build.5") match it, too.
PATTERN = re.compile(
    r"""\s* v? (?P<release> \d+ (?: \. \d+ )* )
    (?: [-_.]? (?P<phase> alpha | beta | preview | pre | rc | a | b | c ) [-_.]? (?P<pre> \d* ) )?
    (?: - (?P<bare_post> \d+ ) | [-_.]? (?P<post_word> post | rev | r ) [-_.]? (?P<post> \d* ) )?
    (?: [-_.]? (?P<dev_word> dev ) [-_.]? (?P<dev> \d* ) )?
    (?: \+ [a-z0-9] (?: [-_.a-z0-9]* [a-z0-9] )? )? \s*""",
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
PHASES = {"a": 1, "alpha": 1, "b": 2, "beta": 2, "c": 3, "rc": 3, "pre": 3, "preview": 3}
BEFORE_PHASES, AFTER_PHASES = 0, 4
# Longer than any version: int() of a thousand digits, which a client may send, takes time.
MAX_LENGTH = 100


@dataclass(frozen=True, order=True, slots=True)
class Version:
    """A version to compare with others. The part after "+" is not compared: it names a build of the same version.

    post and dev count from 1. A version without them has 0 and infinity, and sorts before post and after dev versions.
    """

    release: tuple[int, ...]
    phase: int
    pre: int
    post: int
    dev: float

    @classmethod
    def parse(cls, text: str) -> Version | None:
        """Parse a version; None for a text that is not one."""
        return _parse(text) if len(text) <= MAX_LENGTH else None


@lru_cache(maxsize=1024)  # a million clients have a handful of versions
def _parse(text: str) -> Version | None:
    match = PATTERN.fullmatch(text)
    if match is None:
        return None
    release = tuple(int(part) for part in match["release"].split("."))
    while len(release) > 1 and release[-1] == 0:  # 1.0 is 1
        release = release[:-1]
    is_post = bool(match["post_word"] or match["bare_post"])
    is_dev = bool(match["dev_word"])
    if match["phase"]:
        phase = PHASES[match["phase"].lower()]
    else:
        # 1.0.dev1 comes before 1.0a1, but 1.0.post1.dev1 after 1.0.
        phase = BEFORE_PHASES if is_dev and not is_post else AFTER_PHASES
    return Version(
        release,
        phase,
        int(match["pre"] or 0),
        1 + int(match["post"] or match["bare_post"] or 0) if is_post else 0,
        float(match["dev"] or 0) if is_dev else float("inf"),
    )
