"""JSON Schemas that developers give: checked when they are saved, enforced on what clients send."""

from typing import Any

import jsonschema
from jsonschema.validators import validator_for
from referencing import Registry

from fma_django.errors import InvalidValue, SchemaViolation

# With an empty registry a schema that refers to another document fails, instead of making the server fetch it.
NOTHING_ELSEWHERE: Registry[Any] = Registry()


def require_valid_schema(schema: Any, *, field: str) -> None:
    """Raises InvalidValue for what is not a JSON Schema (draft 2020-12, or the one that it names)."""
    if not isinstance(schema, dict | bool):
        raise InvalidValue("a JSON Schema is an object, true or false", field=field)
    if isinstance(schema, dict) and not isinstance(schema.get("$schema", ""), str):
        raise InvalidValue("the $schema of a JSON Schema is a string", field=field)
    validator = validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        validator.check_schema(schema)  # type: ignore[arg-type]  # true and false are schemas too
    except RecursionError as error:
        raise InvalidValue("this JSON Schema is nested too deep", field=field) from error
    except jsonschema.SchemaError as error:
        raise InvalidValue(
            f"not a JSON Schema: at {error.json_path}: {_short(error.message)}", field=field
        ) from error


def require_schema(value: Any, schema: Any, *, field: str) -> None:
    """Raises SchemaViolation, naming the place."""
    validator = validator_for(schema, default=jsonschema.Draft202012Validator)(
        schema, registry=NOTHING_ELSEWHERE
    )
    try:
        error = jsonschema.exceptions.best_match(validator.iter_errors(value))
    except Exception as unresolvable:  # referencing's errors have no common ancestor
        raise SchemaViolation(
            f"the model's schema cannot be applied: {unresolvable}", field=field
        ) from unresolvable
    if error is not None:
        raise SchemaViolation(
            f"does not match the model's schema: at {error.json_path}: {_short(error.message)}", field=field
        )


def _short(message: str) -> str:
    return message if len(message) <= 300 else f"{message[:150]} … {message[-140:]}"
