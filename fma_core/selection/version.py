"""Versions in the order of PEP 440, without the package that does it: the core brings numpy only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

# Of PEP 440, without epochs; what semantic versions write ("1.2.0-beta.3+build.5") is among it.
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
# Longer than any version; int() of a client's thousand digits is not for free.
MAX_LENGTH = 100


@dataclass(frozen=True, order=True, slots=True)
class Version:
    """A version to compare with others. What follows "+" is not compared: it names a build of the same version.

    post and dev count from 1; a version that is none has 0 and infinity, which sorts it before and after those.
    """

    release: tuple[int, ...]
    phase: int
    pre: int
    post: int
    dev: float

    @classmethod
    def parse(cls, text: str) -> Version | None:
        """The version that a text says, or None when it says none."""
        return _parse(text) if len(text) <= MAX_LENGTH else None


@lru_cache(maxsize=1024)  # a million clients have a handful of versions
def _parse(text: str) -> Version | None:
    found = PATTERN.fullmatch(text)
    if found is None:
        return None
    release = tuple(int(part) for part in found["release"].split("."))
    while len(release) > 1 and release[-1] == 0:  # 1.0 is 1
        release = release[:-1]
    is_post = bool(found["post_word"] or found["bare_post"])
    is_dev = bool(found["dev_word"])
    if found["phase"]:
        phase = PHASES[found["phase"].lower()]
    else:
        # 1.0.dev1 comes before 1.0a1, but 1.0.post1.dev1 after 1.0.
        phase = BEFORE_PHASES if is_dev and not is_post else AFTER_PHASES
    return Version(
        release,
        phase,
        int(found["pre"] or 0),
        1 + int(found["post"] or found["bare_post"] or 0) if is_post else 0,
        float(found["dev"] or 0) if is_dev else float("inf"),
    )
