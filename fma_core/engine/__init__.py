"""The engine: folds the updates of a round into the next model, block of columns by block of columns."""

from fma_core.engine.executors import Executor, Serial, Threads
from fma_core.engine.fold import ENGINE_VERSION, Folded, fold
from fma_core.engine.uses import UpdateUse
from fma_core.engine.weight_files import ModelFile, UpdateFile

__all__ = [
    "ENGINE_VERSION",
    "Executor",
    "Folded",
    "ModelFile",
    "Serial",
    "Threads",
    "UpdateFile",
    "UpdateUse",
    "fold",
]
