"""The parameter of all rules that are told how many attackers there may be."""

from __future__ import annotations

from typing import Annotated

from fma_core.parameters import Bounds

Attackers = Annotated[int, Bounds(ge=0), "how many of the updates may be an attacker's"]
