"""Try an experiment before it is hosted: its whole configuration in one process, with clients that are functions."""

from fma_core.simulation.client import SimulatedClient, Trained
from fma_core.simulation.progress import Progress, progress_bar
from fma_core.simulation.result import Simulation
from fma_core.simulation.simulate import simulate
from fma_core.simulation.simulated_round import SimulatedRound

__all__ = [
    "Progress",
    "SimulatedClient",
    "SimulatedRound",
    "Simulation",
    "Trained",
    "progress_bar",
    "simulate",
]
