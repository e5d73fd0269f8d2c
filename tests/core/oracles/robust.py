"""Cases of the robust rules and of the stages before them."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.optimize
import scipy.stats
from case import single
from libraries import (
    NAMES,
    PAPER,
    BladesUpdate,
    byzfl,
    byzfl_before,
    centeredclipping,
    fltrust,
    flwr,
    flwr_results,
)
from matrices import even, examples, golden, tall, wide

FLWR, BYZFL, BLADES, NUMPY, SCIPY = (NAMES[name] for name in ("flwr", "byzfl", "blades", "numpy", "scipy"))
Cases = list[dict[str, Any]]


def median() -> Cases:
    return [
        single(
            f"{FLWR} aggregate_median",
            rows=rows,
            strategy={"aggregator": "median"},
            expected=flwr.aggregate_median(flwr_results(rows))[0],
            also={
                f"{BYZFL} Median": byzfl.Median()(rows),
                f"{SCIPY} scoreatpercentile": np.array(
                    [scipy.stats.scoreatpercentile(column, 50) for column in rows.T]
                ),
            },
        )
        for rows in (golden(), wide(), tall(), even())
    ]


def trimmed_mean() -> Cases:
    cases = []
    # The shares are such that ⌊βn⌋ does not hang on the rounding of a product.
    for rows, beta in ((golden(), 0.25), (wide(), 0.2), (tall(), 0.21), (even(), 0.45)):
        k = int(beta * len(rows))
        case = single(
            f"{SCIPY} trim_mean",
            rows=rows,
            strategy={"aggregator": "trimmed_mean", "aggregator_params": {"beta": beta}},
            expected=scipy.stats.trim_mean(rows, beta, axis=0),
            also={
                f"{FLWR} aggregate_trimmed_avg": flwr.aggregate_trimmed_avg(flwr_results(rows), beta)[0],
                f"{BYZFL} TrMean(f=k)": byzfl.TrMean(k)(rows),
            },
            facts={"k": k},
        )
        cases.append(case)
    return cases


def krum() -> Cases:
    cases = []
    for rows, f in ((golden(), 2), (golden(), 3), (wide(), 2), (tall(), 5), (even(), 1)):
        scores = krum_scores(rows, f)
        chosen = int(np.argmin(scores))
        case = single(
            f"{FLWR} aggregate_krum",
            rows=rows,
            strategy={"aggregator": "krum", "aggregator_params": {"f": f}},
            expected=flwr.aggregate_krum(flwr_results(rows), f, 0)[0],
            also={f"{BYZFL} Krum(f + 1)": byzfl.Krum(f + 1)(rows), PAPER: rows[chosen]},
            facts={"scores": scores, "chosen": chosen},
        )
        cases.append(case)
    return cases


def multi_krum() -> Cases:
    cases = []
    for rows, f, m in ((golden(), 2, 7), (golden(), 2, 6), (wide(), 2, 9), (tall(), 5, 19), (even(), 1, 3)):
        scores = krum_scores(rows, f)
        chosen = np.sort(np.argsort(scores)[:m])
        also = {PAPER: rows[chosen].mean(axis=0)}
        if m == len(rows) - f - 1:  # byzfl keeps n − f of its own f, which is one more than ours
            also[f"{BYZFL} MultiKrum(f + 1)"] = byzfl.MultiKrum(f + 1)(rows)
        case = single(
            f"{FLWR} aggregate_krum(to_keep=m), equal examples",
            rows=rows,
            strategy={"aggregator": "multi_krum", "aggregator_params": {"f": f, "m": m}},
            expected=flwr.aggregate_krum(flwr_results(rows), f, m)[0],
            also=also,
            facts={"scores": scores, "chosen": chosen},
        )
        cases.append(case)
    return cases


def krum_scores(rows: np.ndarray, f: int) -> np.ndarray:
    """The sum of the n − f − 2 smallest squared distances of each row to the others."""
    scores = []
    for i, row in enumerate(rows):
        distances = [np.sum((row - other) ** 2) for j, other in enumerate(rows) if j != i]
        scores.append(sum(sorted(distances)[: max(1, len(rows) - f - 2)]))
    return np.array(scores)


def bulyan_picks(rows: np.ndarray, f: int, *, ties: str = "first") -> list[int]:
    """The rows that Krum picks; of equal scores the first, or ("nearer") the one with the nearer next neighbours."""
    left, picked = list(range(len(rows))), []
    while len(picked) < len(rows) - 2 * f:
        scores = krum_scores(rows[left], f)
        best = int(np.argmin(scores))
        if ties == "nearer":
            tied = np.flatnonzero(np.isclose(scores, scores[best], rtol=1e-12))
            best = int(min(tied, key=lambda i: sorted(np.sum((rows[left] - rows[left][i]) ** 2, axis=1))))
        picked.append(left.pop(best))
    return picked


def reordered(rows: np.ndarray, f: int) -> np.ndarray:
    """The rows in an order in which the first of equal scores is the one with the nearer next neighbours.

    flwr takes the first. The last picks are between two updates that are each other's nearest, and so have one score.
    """
    for seed in range(1000):
        order = np.random.default_rng(seed).permutation(len(rows)) if seed else np.arange(len(rows))
        if bulyan_picks(rows[order], f) == bulyan_picks(rows[order], f, ties="nearer"):
            return rows[order]
    raise ValueError("no order of these rows suits both")


def bulyan() -> Cases:
    cases = []
    for rows, f in ((golden(), 1), (wide(), 2), (tall(), 5), (even(), 1)):
        rows = reordered(rows, f)
        picked = bulyan_picks(rows, f)
        chosen = rows[picked]
        nearest = np.argsort(np.abs(chosen - np.median(chosen, axis=0)), axis=0)[: len(picked) - 2 * f]
        case = single(
            f"{FLWR} aggregate_bulyan",
            rows=rows,
            strategy={"aggregator": "bulyan", "aggregator_params": {"f": f}},
            expected=flwr.aggregate_bulyan(flwr_results(rows), f, flwr.aggregate_krum, to_keep=0)[0],
            also={PAPER: np.take_along_axis(chosen, nearest, axis=0).mean(axis=0)},
            facts={"picked": picked},
        )
        cases.append(case)
    return cases


def geometric_median() -> Cases:
    cases = []
    for rows, counts in (
        (golden(), None),
        (wide(), None),
        (tall(), None),
        (even(), None),
        (golden(), examples(9)),
        (tall(), examples(25)),
    ):
        weights = np.ones(len(rows)) if counts is None else counts
        # byzfl takes no weights: a client with five examples is five clients with one.
        exact = byzfl.GeometricMedian(nu=1e-12, T=20_000)(np.repeat(rows, weights.astype(int), axis=0))
        found = scipy.optimize.minimize(
            lambda z, rows=rows, weights=weights: np.sum(weights * np.linalg.norm(rows - z, axis=1)),
            np.median(rows, axis=0),
            jac=lambda z, rows=rows, weights=weights: np.sum(
                weights[:, None] * (z - rows) / np.linalg.norm(rows - z, axis=1)[:, None], axis=0
            ),
            options={"gtol": 1e-12},
        )
        case = single(
            f"{BYZFL} GeometricMedian(nu=1e-12, T=20000){'' if counts is None else ' of repeated rows'}",
            rows=rows,
            strategy={"aggregator": "geometric_median"},
            expected=exact,
            also={f"{SCIPY} minimize": found.x},
            num_examples=None if counts is None else counts.tolist(),
            # A minimum is flat: half the digits are all that a minimiser finds, and the rule stops at a tolerance.
            tolerance=1e-5,
        )
        cases.append(case)
    return cases


def centered_clipping() -> Cases:
    cases = []
    for rows, tau, iterations in (
        (golden(), 1.0, 3),
        (golden(), 10.0, 1),
        (wide(), 5.0, 4),
        (tall(), 2.0, 10),
        (even(), 0.005, 2),
    ):
        blades = centeredclipping.Centeredclipping(tau, iterations)
        case = single(
            f"{BYZFL} CenteredClipping",
            rows=rows,
            strategy={
                "aggregator": "centered_clipping",
                "aggregator_params": {"tau": tau, "iterations": iterations},
            },
            expected=byzfl.CenteredClipping(L=iterations, tau=tau)(rows),
            also={f"{BLADES} Centeredclipping": blades([BladesUpdate(row) for row in rows]).numpy()},
            facts={"centre": np.zeros(rows.shape[1])},
        )
        cases.append(case)
    return cases


def norm_bounded_mean() -> Cases:
    cases = []
    for rows, max_norm in ((golden(), None), (golden(), 2.5), (wide(), None), (tall(), 1.5), (even(), None)):
        norms = np.linalg.norm(rows, axis=1)
        bound = float(np.median(norms)) if max_norm is None else max_norm
        case = single(
            f"{BYZFL} Clipping, then {NUMPY} mean",
            rows=rows,
            strategy={"aggregator": "norm_bounded_mean", "aggregator_params": {"max_norm": max_norm}},
            expected=byzfl_before.Clipping(bound)(rows.copy()).mean(axis=0),
            also={PAPER: np.mean([row * min(1, bound / np.linalg.norm(row)) for row in rows], axis=0)},
            facts={"max_norm": bound},
        )
        cases.append(case)
    return cases


def clip_norm() -> Cases:
    cases = []
    for rows, max_norm in ((golden(), 2.0), (wide(), 6.0), (even(), 0.006)):
        counts = examples(len(rows))
        clipped = byzfl_before.Clipping(max_norm)(rows.copy())
        scales = [min(1, max_norm / np.linalg.norm(row)) for row in rows]
        case = single(
            f"{BYZFL} Clipping, then {FLWR} aggregate",
            rows=rows,
            strategy={"aggregator": "mean", "stages": [{"name": "clip_norm", "max_norm": max_norm}]},
            expected=flwr.aggregate(flwr_results(clipped, counts))[0],
            also={PAPER: np.average(rows * np.array(scales)[:, None], axis=0, weights=counts)},
            num_examples=counts.tolist(),
        )
        cases.append(case)
    return cases


def fltrust_() -> Cases:
    cases = []
    for rows, root in ((golden(), 5), (wide(), 0), (tall(), 4), (even(), 9)):
        clients = [BladesUpdate(row, is_root=i == root) for i, row in enumerate(rows)]
        trusted, others = rows[root], np.delete(rows, root, axis=0)
        norms = np.linalg.norm(others, axis=1)
        trust = np.maximum(0, others @ trusted / norms / np.linalg.norm(trusted))
        rescaled = others * (np.linalg.norm(trusted) / norms)[:, None]
        case = single(
            f"{BLADES} Fltrust",
            rows=rows,
            strategy={"aggregator": "fltrust", "aggregator_params": {"root_client": str(root)}},
            expected=fltrust.Fltrust()(clients).numpy(),
            also={PAPER: trust @ rescaled / trust.sum()},
            facts={"root": root, "clients": [str(i) for i in range(len(rows))]},
        )
        cases.append(case)
    return cases


def nnm() -> Cases:
    cases = []
    for rows, f, after in (
        (golden(), 2, "mean"),
        (wide(), 2, "median"),
        (tall(), 5, "mean"),
        (tall(), 5, "median"),
        (even(), 3, "median"),
    ):
        mixed = byzfl_before.NNM(f)(rows)
        by_hand = []
        for row in rows:
            nearest = np.argsort(np.sum((rows - row) ** 2, axis=1))[: len(rows) - f]
            by_hand.append(rows[nearest].mean(axis=0))
        rule = {"mean": flwr.aggregate, "median": flwr.aggregate_median}[after]
        case = single(
            f"{BYZFL} NNM, then {FLWR} {rule.__name__}",
            rows=rows,
            strategy={"aggregator": after, "stages": [{"name": "nnm", "f": f}]},
            expected=rule(flwr_results(mixed))[0],
            also={PAPER: getattr(np, after)(by_hand, axis=0)},
        )
        cases.append(case)
    return cases


def bucketing() -> Cases:
    cases = []
    for rows, size in ((golden(), 3), (even(), 2), (even(), 5), (tall(), 5)):
        np.random.seed(0)  # byzfl's only source of randomness
        case = single(
            f"{BYZFL} Bucketing, then {NUMPY} mean",
            rows=rows,
            strategy={"aggregator": "mean", "stages": [{"name": "bucketing", "size": size, "seed": 1}]},
            expected=rows.mean(axis=0),
            also={f"{BYZFL} Bucketing": byzfl_before.Bucketing(size)(rows).mean(axis=0)},
            facts={"law": "full buckets of equal size keep the mean, whatever the seed"},
        )
        cases.append(case)
    return cases


RULES = {
    "median": median,
    "trimmed_mean": trimmed_mean,
    "krum": krum,
    "multi_krum": multi_krum,
    "bulyan": bulyan,
    "geometric_median": geometric_median,
    "centered_clipping": centered_clipping,
    "norm_bounded_mean": norm_bounded_mean,
    "clip_norm": clip_norm,
    "fltrust": fltrust_,
    "nnm": nnm,
    "bucketing": bucketing,
}
