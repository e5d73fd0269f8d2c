"""Every rule against stored answers of independent libraries (tests/core/oracles/README.md says whose)."""

import json
from pathlib import Path

import numpy as np
import pytest

from fma_core.aggregation.aggregators import aggregators
from fma_core.aggregation.strategy import Strategy
from tests.core.rounds import Rounds

FOLDER = Path(__file__).parent / "oracles"
# Flower's own correction of FedAdam's bias is kept there beside the paper's; FMA does not offer it.
CASES = [
    pytest.param(case, id=f"{path.stem}-{number}")
    for path in sorted(FOLDER.glob("*.json"))
    for number, case in enumerate(json.loads(path.read_text())["cases"])
    if case["facts"].get("variant") != "flwr"
]


def strategy_of(case, *, update_kind="delta"):
    spec = case["strategy"]
    return Strategy.build(
        aggregators.build(spec["aggregator"], spec.get("aggregator_params")),
        stages=spec.get("stages", ()),
        optimiser=spec.get("optimiser"),
        staleness=spec.get("staleness"),
        update_kind=update_kind,
    )


def require_close(found, expected, tolerance):
    expected = np.array(expected)
    assert np.abs(found - expected).max() <= tolerance * max(np.abs(expected).max(), 1e-300)


def facts_of(case):
    return {
        name: case["facts"][name] for name in ("metrics", "clients", "staleness") if name in case["facts"]
    }


@pytest.mark.parametrize("case", [param for param in CASES if "rows" in param.values[0]])
def test_one_round(case, tmp_path):
    # From zero, where the next model is the step.
    rows = np.array(case["rows"])
    rounds = Rounds(tmp_path, strategy_of(case), {"w": np.zeros(rows.shape[1])})
    found = rounds.play([{"w": row} for row in rows], num_examples=case.get("num_examples"), **facts_of(case))
    require_close(found["w"], case["expected"], case["tolerance"])


@pytest.mark.parametrize("case", [param for param in CASES if "rounds" in param.values[0]])
def test_consecutive_rounds(case, tmp_path):
    sends_weights = "weights" in case["rounds"][0]
    strategy = strategy_of(case, update_kind="weights" if sends_weights else "delta")
    start = {"w": np.array(case["start"])}
    rounds = Rounds(tmp_path, strategy, start, case["facts"].get("num_clients"))
    for round_ in case["rounds"]:
        sent = [{"w": np.array(row)} for row in round_["weights" if sends_weights else "rows"]]
        for update, control in zip(sent, round_.get("control", []), strict=False):
            update["control/w"] = np.array(control)
        found = rounds.play(
            sent, num_examples=round_.get("num_examples"), **facts_of({"facts": round_}), **facts_of(case)
        )
        require_close(found["w"], round_["expected"], case["tolerance"])
        for name, values in round_.get("state", {}).items():
            (kept,) = [array for key, array in rounds.state.items() if key.endswith(f".{name}/w")]
            require_close(kept, values, case["tolerance"])
