"""The page on rounds has the states and the steps of the code."""

import re
from pathlib import Path
from typing import get_args

from fma_core.rounds.life import TRANSITIONS, Step

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs/explanation/rounds.md").read_text()
PICTURE = (ROOT / "docs/img/life.svg").read_text()


def rows(heading: str) -> list[list[str]]:
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_states_are_those_of_the_code() -> None:
    told = {state.strip("`"): set(re.findall(r"`(\w+)`", after)) for state, _, after in rows("The states")}

    assert told == {state: set(after) for state, after in TRANSITIONS.items()}


def test_the_steps_are_those_of_the_code() -> None:
    told = [step.strip("`") for _, step in rows("Starting and closing")]

    assert set(told) == {step.__name__ for step in get_args(Step)}
    assert told == ["End", "Wait", "Wait", "Start", "Close", "Reopen", "Fail", "Wait"]


def test_the_picture_has_every_state_and_every_step() -> None:
    names = {*TRANSITIONS, *(step.__name__ for step in get_args(Step))}

    assert {name for name in names if f">{name}<" not in PICTURE} == set()
