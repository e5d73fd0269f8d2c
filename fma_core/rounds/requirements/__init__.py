"""Requirements: when a round may close."""

from fma_core.rounds.requirements.counts import AllClients, NoRequirement, RequireXUpdates
from fma_core.rounds.requirements.requirement import Requirement, RoundProgress, requirements

__all__ = ["AllClients", "NoRequirement", "RequireXUpdates", "Requirement", "RoundProgress", "requirements"]
