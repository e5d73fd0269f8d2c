"""Hypothesis for the arithmetic: less than half of its usual examples, each of which computes with arrays."""

from hypothesis import settings

settings.register_profile("fma_core", settings.get_profile("fma"), max_examples=40)
settings.load_profile("fma_core")
