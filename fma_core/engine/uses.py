"""The use that a fold made of each update: its weight in the result, the length of its step, and a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fma_core.aggregation.aggregators import Aggregator, Float64, aggregators
from fma_core.aggregation.aggregators.aggregator import RowWeights
from fma_core.aggregation.aggregators.distances import distances_from, is_measurable
from fma_core.aggregation.stages import RowStage, stages
from fma_core.engine.file_block import mixed_weights
from fma_core.engine.rows import FileRows

Verdict = Literal["used", "clipped", "rejected"]


@dataclass(frozen=True)
class UpdateUse:
    """The use of one update.

    by: the rule or the stage that clipped or rejected it, or the code of the error for which the fold left it out; ""
        for an update that was used as it was.
    weight: its factor in the weighted sum that is the rule's answer, as a share of all factors: 0 to 1, their sum is 1
        if any update counts. None where each coordinate has weights of its own (a median), or the rule does not say.
    norm: the L2 norm of its step, the change from the model that the rule measures it from.
    distance: the L2 distance of its step from the rule's answer, before the optimiser.
    Norms and distances follow from sums that the rule and the stages asked for; None where nobody did.
    """

    verdict: Verdict = "used"
    by: str = ""
    weight: float | None = None
    norm: float | None = None
    distance: float | None = None

    @property
    def counts(self) -> bool:
        return self.verdict != "rejected"


def uses_of(
    aggregator: Aggregator[Any],
    decision: Any,
    sent: FileRows,
    row_stages: Sequence[RowStage],
    matrices: Sequence[Float64],
    mixes: Sequence[Float64],
) -> tuple[UpdateUse, ...]:
    """The use of each row of the files, once the rule has decided.

    matrices: the row maps of the stages, in order. mixes[k][i, j]: how much of row j of the files is in row i after
    stage k.
    """
    num_sent = sent.num_rows
    verdicts: list[tuple[Verdict, str]] = [("used", "")] * num_sent

    def judge(verdict: Verdict, by: str, rows: NDArray[np.bool_]) -> None:
        for row in np.flatnonzero(rows).tolist():
            is_first = verdicts[row][0] == "used" or (verdict == "rejected" != verdicts[row][0])
            if is_first:
                verdicts[row] = (verdict, by)

    mix: Float64 | None = None
    for stage, matrix, mixed in zip(row_stages, matrices, mixes, strict=True):
        name = stages.name_of(stage)
        if not stage.mixes:
            judge("clipped", name, _updates_in(np.abs(np.diagonal(matrix)) < 1, mix))
        mix = mixed
        judge("rejected", name, ~(mix != 0).any(axis=0))
    name = aggregators.name_of(aggregator)
    told = row_weights_of(aggregator, decision, num_sent if mix is None else len(mix))
    if told is None:
        factors = np.full(num_sent, np.nan)
    else:
        if told.is_clipped is not None:
            judge("clipped", name, _updates_in(told.is_clipped, mix))
        factors = _of_updates(told.values, mix)
        rejected = told.values == 0 if told.is_rejected is None else told.is_rejected
        judge("rejected", name, ~_updates_in(~rejected, mix))
    return tuple(
        UpdateUse(verdict, by, *map(_number, numbers))
        for (verdict, by), *numbers in zip(
            verdicts, _shares(factors), _norms(sent), _distances(sent, factors), strict=True
        )
    )


def row_weights_of(aggregator: Aggregator[Any], decision: Any, num_rows: int) -> RowWeights | None:
    """The weights that the rule gave; None for a rule that does not say, or inherits the words of another rule."""
    kinds = type(aggregator).__mro__
    speaks, *decides = (
        next(place for place, kind in enumerate(kinds) if name in vars(kind))
        for name in ("row_weights", "measure", "combine")
    )
    if speaks > min(decides):
        return None
    told = aggregator.row_weights(decision, num_rows)
    if told is not None and not (told.values.shape == (num_rows,) and not (told.values < 0).any()):
        raise ValueError(
            f"{type(aggregator).__name__}.row_weights must give {num_rows} numbers of 0 or more, found {told.values}"
        )
    return told


def _updates_in(rows: NDArray[np.bool_], mix: Float64 | None) -> NDArray[np.bool_]:
    """The updates that are part of any of these rows."""
    return rows if mix is None else (mix[rows] != 0).any(axis=0)


def _of_updates(weights: Float64, mix: Float64 | None) -> Float64:
    if mix is None:
        return weights
    is_known = ~np.isnan(weights)
    factors = mixed_weights(weights[is_known], mix[is_known])
    factors[_updates_in(~is_known, mix)] = np.nan
    return factors


def _shares(factors: Float64) -> Float64:
    total = np.add.reduce(factors[~np.isnan(factors)])
    # Where some updates have weights of their own in each coordinate, only 0 is known of the others.
    if np.isnan(factors).any():
        return np.where(factors == 0, 0.0, np.nan)
    with np.errstate(invalid="ignore", over="ignore"):
        return factors if total == 0 else factors / total


def _norms(sent: FileRows) -> Float64:
    squared = sent.known_squared_norms
    # Rows that are whole weights have no step to speak of.
    return np.full(sent.num_rows, np.nan) if squared is None or sent.are_weights else np.sqrt(squared)


def _distances(sent: FileRows, factors: Float64) -> Float64:
    distances = np.full(sent.num_rows, np.nan)
    gram = sent.known_gram
    if gram is not None and not np.isnan(factors).any():
        known = np.flatnonzero(is_measurable(gram))
        with np.errstate(over="ignore", invalid="ignore"):
            distances[known] = distances_from(factors[known], gram[np.ix_(known, known)])
    return distances


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
