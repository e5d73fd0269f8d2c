"""Metrics of a model on the data of many clients, from counts and sums that each client computes alone.

    question = Question("binary", bins=100)
    ours = statistics_of(question, y_true=labels, y_pred=predictions, scores=probabilities)    # at each client
    metrics_of(merge(statistics))                                                              # at the server

Merged statistics are those of the pooled examples: metrics are functions of the sums, never means of metrics.
"""

from fma_core.evaluation.differences import Isolation, isolation_of
from fma_core.evaluation.question import Label, Question
from fma_core.evaluation.statistics import (
    Statistics,
    from_json,
    merge,
    metrics_of,
    statistics_of,
    to_json,
)

__all__ = [
    "Isolation",
    "Label",
    "Question",
    "Statistics",
    "from_json",
    "isolation_of",
    "merge",
    "metrics_of",
    "statistics_of",
    "to_json",
]
