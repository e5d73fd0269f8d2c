"""The filter by the version of the client library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fma_core.selection.candidate import Candidate
from fma_core.selection.eligibility.filter import Filter, IfUnknown, check_fact, filters
from fma_core.selection.refusal import Refusal
from fma_core.selection.version import Version


@filters.register("client_version")
@dataclass(frozen=True)
class ClientVersion(Filter):
    """Clients whose library has version `at_least` or a later one, but one before `before`.

    Versions are ordered as in PEP 440: 0.9 < 0.10.dev1 < 0.10rc1 < 0.10 < 0.10.post1. A text that is not a version is
    refused.

    >>> ClientVersion(at_least="1.4").refuse(Candidate("phone", version="1.10")) is None
    True
    >>> ClientVersion(at_least="1.4").refuse(Candidate("phone", version="1.4rc1")).detail
    'version 1.4 or later is needed, the client has 1.4rc1'
    """

    source: ClassVar[str] = "fma"

    at_least: Annotated[str | None, "the first version that is allowed; null: any"] = None
    before: Annotated[str | None, "the first version that is not allowed any more; null: any"] = None
    if_unknown: IfUnknown = "refuse"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.at_least is None and self.before is None:
            raise ValueError("at_least or before must be given")
        for name, text in (("at_least", self.at_least), ("before", self.before)):
            if text is not None and Version.parse(text) is None:
                raise ValueError(f"{name} must be a version such as 1.4.2, found {text!r:.80}")

    def refuse(self, candidate: Candidate) -> Refusal | None:
        return check_fact(candidate.version, "version", self.if_unknown, self._refuse_other)

    def _refuse_other(self, text: str) -> Refusal | None:
        version = Version.parse(text)
        if version is None:
            return Refusal("client_version", f"the client's version {text!r:.80} is none such as 1.4.2")
        if (least := _parsed(self.at_least)) and version < least:
            return Refusal(
                "client_version", f"version {self.at_least} or later is needed, the client has {text}"
            )
        if (end := _parsed(self.before)) and not version < end:
            return Refusal(
                "client_version", f"a version before {self.before} is needed, the client has {text}"
            )
        return None


def _parsed(text: str | None) -> Version | None:
    return None if text is None else Version.parse(text)
