"""The columns of an experiment's configuration: all that a developer decides about how its rounds run.

The one table of their names. From it come the columns that each round keeps a version of, the members of a model in
the API, the form in the admin and the members that a simulation reads; a test compares `DeveloperClient.create_model`.
A new column is a row here, a field of FederatedModel, a keyword of `create_model`, its reading in
`fma_core/simulation/configuration.py`, and whatever acts on it.
"""

from dataclasses import dataclass
from typing import Literal

MAX_SEED = 2**53 - 1  # exact wherever JSON is read

Group = Literal["Rules", "Rounds", "Told to clients", "Formats"]


@dataclass(frozen=True)
class Column:
    """One column.

    group: the part of a form in which it stands. hint: the end of its help text in a form, after that of the field of
    FederatedModel: an example, or the meaning of an empty one.
    max_bytes: the most that its JSON may take, far beyond what anybody needs: it is written down with every round.
    is_schema: whether it is a JSON Schema, which a server checks by and a simulation does not read.
    """

    name: str
    group: Group
    hint: str = ""
    max_bytes: int | None = 64 * 1024
    is_schema: bool = False


STRATEGY_COLUMNS = (
    Column("aggregator", "Rules"),
    Column("aggregator_params", "Rules", 'Example: {"f": 2}.'),
    Column("stages", "Rules", 'Example: [{"name": "clip_norm", "max_norm": 10}]. Empty: none.'),
    Column("optimiser", "Rules", 'Example: {"name": "fedadam", "learning_rate": 0.01}.'),
    Column("update_kind", "Rules"),
    Column("staleness", "Rules", 'Example: {"name": "polynomial", "a": 0.5}.'),
    Column(
        "array_policies",
        "Rules",
        'Example: {"head.*": "kept"}. Empty: running statistics are averaged, all else is stepped.',
    ),
)
COLUMNS = (
    *STRATEGY_COLUMNS,
    Column("requirement", "Rules"),
    Column("requirement_args", "Rules", "Example: [10]."),
    Column(
        "round_policy",
        "Rounds",
        'Example: {"goal": 10, "deadline_s": 600, "num_rounds": 50}. '
        "Empty: the requirement closes rounds, and nothing ends them.",
    ),
    Column("selector", "Rounds", 'Example: {"name": "random"}. Empty: everyone.'),
    Column("eligibility", "Rounds", 'Example: [{"name": "battery", "min_level": 0.5}]. Empty: all.'),
    Column("seed", "Rounds", "Empty: a random one, or the present one."),
    Column("client_config", "Told to clients", 'Example: {"local_epochs": 2}.', max_bytes=None),
    Column(
        "client_config_overrides",
        "Told to clients",
        'Example: [{"tags": ["gpu"], "set": {"batch_size": 64}}].',
        max_bytes=None,
    ),
    Column("client_config_schema", "Told to clients", is_schema=True),
    Column("furthest_base_agg", "Rules"),
    Column("update_schema", "Formats", max_bytes=None, is_schema=True),
    Column("client_agg_results_schema", "Formats", max_bytes=None, is_schema=True),
)
