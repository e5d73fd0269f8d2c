"""Stages: steps on the updates before the rule sees them."""

from fma_core.aggregation.stages.bucketing import Bucketing
from fma_core.aggregation.stages.choose import Exclude, Only
from fma_core.aggregation.stages.clip_norm import ClipNorm
from fma_core.aggregation.stages.nnm import NearestNeighbourMixing
from fma_core.aggregation.stages.stage import ArrayStage, RowMap, RowStage, Stage, stages

__all__ = [
    "ArrayStage",
    "Bucketing",
    "ClipNorm",
    "Exclude",
    "NearestNeighbourMixing",
    "Only",
    "RowMap",
    "RowStage",
    "Stage",
    "stages",
]
