"""Every event of the server's log has one name for each kind of id: those of docs/how-to/deploy-with-compose.md."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
IDS = {
    "model",
    "client",
    "aggregate",
    "update",
    "evaluation",
    "upload",
    "round_id",
    "user_id",
    "request_id",
    "update_ids",
}
# An id, as the code names it, and how the log does.
NAMED = [
    (re.compile(r"(federated_model|experiment)(_id|\.(pk|id))$|\bmodel_id$"), "model"),
    (re.compile(r"client(_id|\.(pk|id|public_id))$"), "client"),
    (re.compile(r"update(_id|\.(pk|id))$"), "update"),
    (re.compile(r"aggregate(_id|\.(pk|id))$"), "aggregate"),
    (re.compile(r"evaluation(_id|\.(pk|id))$"), "evaluation"),
    (re.compile(r"upload(_id|\.(pk|id))\)?$"), "upload"),
]


def events(source: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The events that a module logs, each with its facts as they are written; those behind `**` are no part of them."""
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in LEVELS
            and ast.unparse(node.func.value) == "log"
            and node.args
        ):
            facts = {fact.arg: ast.unparse(fact.value) for fact in node.keywords if fact.arg is not None}
            yield ast.unparse(node.args[0]), facts


def faults_in(source: str) -> list[str]:
    faults = []
    for event, facts in events(source):
        for name, value in facts.items():
            if name in ("round", "round_id"):
                faults.append(f"{event}: {name}=… of its own; **ids_of(round) has all of a round's names")
            if name.endswith("_id") and name not in IDS:
                faults.append(f"{event}: {name} is no name of an id")
            faults.extend(
                f"{event}: {name}={value} is named {wanted}"
                for pattern, wanted in NAMED
                if pattern.search(value) and name != wanted
            )
    return faults


@pytest.mark.untraced
def test_each_kind_of_id_has_one_name_in_the_log() -> None:
    modules = [*(REPOSITORY / "fma_api").rglob("*.py"), *(REPOSITORY / "fma_django").rglob("*.py")]
    sources = {module: module.read_text() for module in modules}

    faults = {str(module): faults for module, source in sources.items() if (faults := faults_in(source))}

    assert faults == {}
    assert sum(1 for source in sources.values() for _ in events(source)) > 30


@pytest.mark.parametrize(
    "call",
    [
        "log.info('e', federated_model=row.federated_model_id)",
        "log.warning('e', model_id=held.federated_model_id)",
        "log.error('e', experiment=experiment.pk)",
        "log.info('e', id=federated_model.pk)",
        "log.exception('e', round=held.number)",
        "log.info('e', round_id=lease.round_id)",
        "log.info('e', device=client.pk)",
        "log.info('e', update_id=update)",
    ],
)
def test_another_name_would_be_found(call: str) -> None:
    assert faults_in(call)


def test_the_names_are_in_the_guide() -> None:
    guide = (REPOSITORY / "docs/how-to/deploy-with-compose.md").read_text()

    assert [name for name in sorted({*IDS, "round"}) if f"`{name}`" not in guide] == []
