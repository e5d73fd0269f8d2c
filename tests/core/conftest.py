"""Hypothesis for the arithmetic: no deadlines, because a machine that runs other things too is not an error, and less
than half of its usual examples, each of which computes with arrays.

In CI the examples are the same in every run, so that what it says depends on the commit alone.
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "fma_core",
    deadline=None,
    max_examples=40,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("fma_core")
