"""Whether what a developer says of an experiment can work, before it is saved."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar
from uuid import UUID

from django.db.models import JSONField

from fma_core import client_config
from fma_core.aggregation.strategy import Strategy
from fma_core.arrays.spec import Spec
from fma_core.errors import FMAError, InvalidParameter, InvalidPart, InvalidSpec, InvalidStrategy
from fma_core.rounds.columns import COLUMNS, MAX_SEED
from fma_core.selection import EVERYONE, filters, selectors
from fma_django.errors import InvalidValue
from fma_django.models import Client, FederatedModel
from fma_django.record.json_schema import require_schema, require_valid_schema
from fma_django.record.json_values import require_storable

MAX_FILTERS = 16
MAX_STAGES = 16
# Stages multiply what a rule needs; beyond this a round would wait for ever, and JSON has no such integers.
MAX_MIN_UPDATES = 1_000_000


def validate(federated_model: FederatedModel) -> None:
    """Raises when one of the model's columns cannot work, with the field that is at fault."""
    _require_few_stages(federated_model.stages)
    _require_sound_json(federated_model)
    require_storable(federated_model.spec, field="spec")
    strategy = _built("aggregator", federated_model.build_strategy)
    _built("requirement", federated_model.build_requirement)
    _require_workable_rounds(federated_model)
    _require_reachable_minimum(strategy)
    _require_root_client(strategy)
    furthest = federated_model.furthest_base_agg
    if furthest is not None and not 1 <= furthest <= 2147483647:
        raise InvalidValue(f"must be from 1 to 2147483647; found {furthest}", field="furthest_base_agg")
    if federated_model.spec is not None:
        try:
            spec = Spec.from_json(federated_model.spec)
        except FMAError as error:
            raise InvalidValue(error.message, field="spec") from error
        federated_model.spec = spec.to_json()
        require_fitting(strategy, spec)


def _require_sound_json(federated_model: FederatedModel) -> None:
    """Require that JSON columns can be stored, and that schemas are schemas, before anything is built of them."""
    for column in COLUMNS:
        value = getattr(federated_model, column.name)
        if isinstance(federated_model._meta.get_field(column.name), JSONField):
            require_storable(value, field=column.name, max_bytes=column.max_bytes)
        if column.is_schema and value is not None:
            require_valid_schema(value, field=column.name)


def _require_workable_rounds(federated_model: FederatedModel) -> None:
    """Whether its policy, its selection and what it tells clients can work."""
    policy = _built("round_policy", federated_model.build_round_policy)
    selector = _built("selector", lambda: selectors.build_spec(federated_model.selector))
    if selector.takes_num and policy.goal is None and federated_model.selector.get("name") != EVERYONE:
        raise InvalidValue(
            f"selector {federated_model.selector['name']!r} needs round_policy.goal, from which it knows how many "
            "clients to choose",
            field="selector",
        )
    eligibility = federated_model.eligibility
    if not isinstance(eligibility, list) or len(eligibility) > MAX_FILTERS:
        raise InvalidValue(
            f"must be a list of at most {MAX_FILTERS} filters, each with its name", field="eligibility"
        )
    for spec in eligibility:
        _built("eligibility", partial(filters.build_spec, spec))
    if type(federated_model.seed) is not int or not 0 <= federated_model.seed <= MAX_SEED:
        raise InvalidValue(
            f"must be an integer from 0 to 2**53 - 1; found {federated_model.seed!r:.60}", field="seed"
        )
    _require_workable_client_config(federated_model)


def _require_workable_client_config(federated_model: FederatedModel) -> None:
    """Whether what clients are told can be made of what the developer says, and fits the schema where there is one.

    Each override is looked at alone, in the first of its rounds: how two of them meet is known only in a round.
    """
    config, overrides = federated_model.client_config, federated_model.client_config_overrides
    _built("client_config", lambda: client_config.check(config, overrides))
    schema = federated_model.client_config_schema
    if schema is None:
        return
    strategy_config = dict(federated_model.build_strategy().aggregator.client_config)
    told = client_config.resolve(config, round_number=1, strategy_config=strategy_config)
    require_schema(told, schema, field="client_config")
    for override in overrides:
        number = (override.get("rounds") or (1, None))[0]
        told = client_config.resolve(
            config, [{"set": override["set"]}], round_number=number, strategy_config=strategy_config
        )
        require_schema(told, schema, field="client_config_overrides")


BuiltT = TypeVar("BuiltT")


def _built(field: str, build: Callable[[], BuiltT]) -> BuiltT:
    try:
        return build()
    except (InvalidPart, InvalidStrategy) as error:
        raise _at(error, field) from error


def _at(error: FMAError, field: str) -> FMAError:
    """The same error, naming the column that is at fault: of a part by name, the one that holds its parameters."""
    if isinstance(error, InvalidParameter):
        field = {"aggregator": "aggregator_params", "requirement": "requirement_args"}.get(field, field)
    return type(error)(error.message, **{"field": field, **error.facts})


def _require_few_stages(stages: object) -> None:
    if not isinstance(stages, list):
        raise InvalidValue("must be a list of parts, each with its name", field="stages")
    if len(stages) > MAX_STAGES:
        raise InvalidValue(f"may have {MAX_STAGES} parts; found {len(stages)}", field="stages")


def _require_reachable_minimum(strategy: Strategy) -> None:
    """No round would ever have as many updates as some parameters ask for."""
    field = "aggregator_params"
    needed = strategy.aggregator.min_updates
    if needed <= MAX_MIN_UPDATES:
        field, needed = "stages", strategy.min_updates
    if needed > MAX_MIN_UPDATES:
        raise InvalidStrategy(
            f"a round would need more than {MAX_MIN_UPDATES} updates; choose smaller parameters", field=field
        )


def require_fitting(strategy: Strategy, spec: Spec) -> None:
    """Whether the strategy has something to do for these arrays, and names for all that it needs beside them."""
    strategy.check_spec(spec)
    try:
        strategy.update_spec(spec)
        strategy.state_spec(spec)
    except InvalidSpec as error:
        raise InvalidStrategy(error.message, field="aggregator") from error


def _require_root_client(strategy: Strategy) -> None:
    for client_id in strategy.aggregator.required_clients:
        try:
            parsed = UUID(client_id)
        except ValueError:
            parsed = None
        if parsed is None or not Client.objects.filter(pk=parsed).exists():
            raise InvalidStrategy(f"there is no client {client_id:.80}", field="aggregator_params")
        # Rows are compared with it letter by letter, and a round would wait for ever.
        if client_id != str(parsed):
            raise InvalidStrategy(
                f"a client must be written as {parsed}; found {client_id:.80}", field="aggregator_params"
            )
