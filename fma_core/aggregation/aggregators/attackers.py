"""The parameter `f` of the rules that tolerate a known number of attackers."""

from __future__ import annotations

from typing import Annotated

from fma_core.parameters import Bounds

Attackers = Annotated[int, Bounds(ge=0), "how many of the updates may be an attacker's"]
