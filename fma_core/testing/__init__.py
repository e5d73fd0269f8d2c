"""The contracts of parts, as test classes to inherit; every built-in part keeps them, and the server relies on them.

    from fma_core.testing import AggregatorContract

    class TestMyRule(AggregatorContract):
        part = MyRule(f=1)

Needs the extra `testing`; `fma_core.in_memory`, whose names are here too, needs no extra.
"""

from fma_core.in_memory import ArrayRounds, StoredRound, Update, fold_arrays
from fma_core.testing.aggregator_contract import AggregatorContract
from fma_core.testing.filter_contract import FilterContract
from fma_core.testing.matrix_rows import MatrixBlock, MatrixRows
from fma_core.testing.optimiser_contract import OptimiserContract
from fma_core.testing.requirement_contract import RequirementContract
from fma_core.testing.schedule_contract import ScheduleContract
from fma_core.testing.selector_contract import SelectorContract
from fma_core.testing.stage_contract import StageContract
from fma_core.testing.staleness_contract import StalenessContract

__all__ = [
    "AggregatorContract",
    "ArrayRounds",
    "FilterContract",
    "MatrixBlock",
    "MatrixRows",
    "OptimiserContract",
    "RequirementContract",
    "ScheduleContract",
    "SelectorContract",
    "StageContract",
    "StalenessContract",
    "StoredRound",
    "Update",
    "fold_arrays",
]
