"""The parts that strategies and rounds are made of: the catalogue of the API, and docs/reference/algorithms.md."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from fma_core.aggregation.aggregators import Aggregator, aggregators
from fma_core.aggregation.optimisers import optimisers
from fma_core.aggregation.stages import ArrayStage, RowStage, stages
from fma_core.aggregation.staleness import stalenesses
from fma_core.client_config import schedules
from fma_core.parameters import Parameter, parameters_of
from fma_core.registry import Description, Registry
from fma_core.rounds.requirements import requirements
from fma_core.selection import filters, selectors

KINDS: Mapping[str, Registry[Any]] = {
    registry.kind: registry
    for registry in (
        aggregators,
        stages,
        optimisers,
        stalenesses,
        requirements,
        filters,
        selectors,
        schedules,
    )
}
TITLES = {
    "aggregator": (
        "Aggregators",
        "A model's `aggregator`, with its parameters in `aggregator_params`: the rule that makes one step of many "
        "updates.",
    ),
    "stage": (
        "Stages",
        "A model's `stages`, a list of them in order: what is done to the updates before the rule sees them.",
    ),
    "optimiser": (
        "Optimisers",
        "A model's `optimiser`: what the model does with the step that the rule gives. Without one it takes it.",
    ),
    "staleness": (
        "Staleness",
        "A model's `staleness`: what an update counts whose base is no longer the newest aggregate.",
    ),
    "requirement": (
        "Requirements",
        "A model's `requirement`, with its parameters in order in `requirement_args`: when a round may close.",
    ),
    "filter": (
        "Filters",
        "A model's `eligibility`, a list of them: which clients may be asked at all. A client must pass all of them.",
    ),
    "selector": (
        "Selectors",
        "A model's `selector`: whom of the eligible clients a round asks. See "
        "[choosing clients](../how-to/select-clients.md).",
    ),
    "schedule": (
        "Schedules",
        'In a model\'s `client_config`, `{"$schedule": {"name": …}}` in the place of a number: what the number is in '
        "each round, counted from 1.",
    ),
}


@cache
def catalogue() -> tuple[dict[str, Any], ...]:
    """Every registered part, by kind and name, as JSON.

    Kept for the life of the process: a plugin that cannot be loaded would otherwise be tried again by every request.
    """
    return tuple(
        {**description.to_json(), "goes_with": _goes_with(description), "changes": _changes(description)}
        for registry in KINDS.values()
        for description in registry.describe_all()
    )


def as_markdown() -> str:
    """The page docs/reference/algorithms.md. Parts of plugins, which this installation may have, are not in it."""
    lines = [
        "# Algorithms",
        "",
        "Every part that FMA brings. `GET /api/v1/algorithms/` lists the same, with the parameters as JSON Schema, and",
        "the parts of plugins too. An aggregator and a requirement are chosen by name, and their parameters stand",
        "beside it; every other part is an object of its name and its parameters, such as",
        '`{"name": "clip_norm", "max_norm": 10}`.',
        "How a round is computed from them is told in [the engine](../explanation/engine.md).",
        "",
        "- " + " · ".join(f"[{title}](#{title.lower()})" for title, _ in TITLES.values()),
    ]
    for kind, registry in KINDS.items():
        title, introduction = TITLES[kind]
        lines += ["", f"## {title}", "", introduction]
        for name in registry.names():
            if registry.class_of(name).__module__.startswith("fma_core."):
                lines += _as_section(registry, name)
    lines += ["", "This page is written by `python -m fma_api.algorithms > docs/reference/algorithms.md`."]
    return "\n".join(lines) + "\n"


def _goes_with(description: Description) -> dict[str, Any] | None:
    """The parts and updates that go with this aggregator; None for other parts."""
    if description.kind != aggregators.kind or description.error is not None:
        return None
    part = aggregators.class_of(description.name)

    def declared(name: str) -> Any:
        return getattr(part, name, getattr(Aggregator, name))

    return {
        **{name: list(declared(name)) for name in ("update_kinds", "required_metrics", "payloads")},
        **{
            name: bool(declared(name))
            for name in ("takes_staleness", "takes_optimiser", "takes_clipped_rows", "takes_mixed_rows")
        },
    }


def _changes(description: Description) -> str | None:
    """The things that a stage changes, which decide whether an aggregator takes it; None for other parts."""
    if description.kind != stages.kind or description.error is not None:
        return None
    part = stages.class_of(description.name)
    if issubclass(part, ArrayStage):
        return "arrays"
    return "mixed_rows" if issubclass(part, RowStage) and part.mixes else "clipped_rows"


def _as_section(registry: Registry[Any], name: str) -> Iterator[str]:
    described = registry.describe(name)
    yield from ("", f"### `{name}`", "", described.description)
    facts = [
        f"Source: {described.source}." if described.source else "",
        f"Needs at least {_updates(described.minimum)}." if described.minimum not in (None, "1") else "",
        *_facts_of_pairs(described),
    ]
    if any(facts):
        yield from ("", " ".join(filter(None, facts)))
    parameters = parameters_of(registry.class_of(name)).values()
    if parameters:
        yield from ("", "| parameter | type | default | what it is |", "|---|---|---|---|")
        yield from map(_as_row, parameters)


def _updates(minimum: str | None) -> str:
    return f"{minimum} updates" if minimum and minimum.isdecimal() else f"this many updates: {minimum}"


def _facts_of_pairs(described: Description) -> Iterator[str]:
    changes, goes_with = _changes(described), _goes_with(described)
    if changes == "mixed_rows":
        yield "It mixes rows."
    if goes_with is None:
        return
    if goes_with["required_metrics"]:
        yield f"Each update must bring {_quoted('metrics.', goes_with['required_metrics'])}."
    if goes_with["payloads"]:
        yield f"Each update must bring arrays {_quoted('', goes_with['payloads'], '/<array>')} beside its weights."
    if "delta" not in goes_with["update_kinds"]:
        yield "Clients must send weights, not deltas."
    if goes_with["takes_staleness"]:
        yield "Takes a staleness function."
    if not goes_with["takes_optimiser"]:
        yield "Takes no optimiser."
    if not goes_with["takes_clipped_rows"]:
        yield "Takes no stage but those that choose arrays."
    elif not goes_with["takes_mixed_rows"]:
        yield "Takes no stage that mixes rows."


def _quoted(prefix: str, names: list[str], suffix: str = "") -> str:
    return ", ".join(f"`{prefix}{name}{suffix}`" for name in names)


def _as_row(parameter: Parameter) -> str:
    default = "" if parameter.is_required else f"`{json.dumps(parameter.default, ensure_ascii=False)}`"
    cells = (f"`{parameter.name}`", str(parameter.kind), default, parameter.description)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    print(as_markdown(), end="")
