"""Aggregation rules: the seam, the registry, and the rules that are built in."""

from fma_core.aggregation.aggregators.aggregator import (
    Aggregator,
    ArrayReader,
    Block,
    Float64,
    Rows,
    RowWeights,
    UpdateKind,
    aggregators,
)
from fma_core.aggregation.aggregators.bulyan import Bulyan
from fma_core.aggregation.aggregators.centered_clipping import CenteredClipping
from fma_core.aggregation.aggregators.fedasync import FedAsync
from fma_core.aggregation.aggregators.fedbuff import FedBuff
from fma_core.aggregation.aggregators.feddyn import FedDyn
from fma_core.aggregation.aggregators.fedex_lora import FedExLora
from fma_core.aggregation.aggregators.fednova import FedNova
from fma_core.aggregation.aggregators.fedprox import FedProx
from fma_core.aggregation.aggregators.fltrust import FLTrust
from fma_core.aggregation.aggregators.geometric_median import GeometricMedian
from fma_core.aggregation.aggregators.krum import Krum
from fma_core.aggregation.aggregators.mean import AverageLayers, AvgValuesIfData, Mean
from fma_core.aggregation.aggregators.median import Median
from fma_core.aggregation.aggregators.multi_krum import MultiKrum
from fma_core.aggregation.aggregators.norm_bounded_mean import NormBoundedMean
from fma_core.aggregation.aggregators.qfedavg import QFedAvg
from fma_core.aggregation.aggregators.scaffold import Scaffold
from fma_core.aggregation.aggregators.trimmed_mean import TrimmedMean

__all__ = [
    "Aggregator",
    "ArrayReader",
    "AverageLayers",
    "AvgValuesIfData",
    "Block",
    "Bulyan",
    "CenteredClipping",
    "FLTrust",
    "FedAsync",
    "FedBuff",
    "FedDyn",
    "FedExLora",
    "FedNova",
    "FedProx",
    "Float64",
    "GeometricMedian",
    "Krum",
    "Mean",
    "Median",
    "MultiKrum",
    "NormBoundedMean",
    "QFedAvg",
    "RowWeights",
    "Rows",
    "Scaffold",
    "TrimmedMean",
    "UpdateKind",
    "aggregators",
]
