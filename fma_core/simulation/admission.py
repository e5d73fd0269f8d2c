"""Admission of an update that arrives to the open round, by the rules of the server (fma_django/updates/admission)."""

from __future__ import annotations

from fma_core.selection import Refusal
from fma_core.simulation.configuration import Configuration
from fma_core.simulation.files import Update
from fma_core.simulation.open_round import OpenRound


def refusal_of(
    update: Update, current: OpenRound, configuration: Configuration, *, num_aggregates: int
) -> Refusal | None:
    """Why it does not count; None when it does. num_aggregates: how many there are when it arrives.

    No round is ever full here: one that has all the updates that it takes, and lacks nobody, has closed at once.
    """
    policy = configuration.closing.policy
    if policy.late_updates == "refuse" and _is_late(update, current, configuration, num_aggregates):
        return Refusal("late_update", f"it was trained for round {update.round_number}")
    furthest = configuration.furthest_base_agg
    # The weights that were given are no aggregate, and too old as soon as there is one.
    if furthest is not None and num_aggregates > 0 and update.base <= max(0, num_aggregates - furthest):
        return Refusal("too_old", f"its base is not among the {furthest} newest aggregates")
    return None


def _is_late(update: Update, current: OpenRound, configuration: Configuration, num_aggregates: int) -> bool:
    if configuration.chooses_clients and update.client not in current.chosen:
        return True
    return update.base != num_aggregates
