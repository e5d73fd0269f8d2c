"""JSON Schemas that developers give: checked when they are saved, enforced on what clients send."""

import json
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

import jsonschema
import re2
from jsonschema.validators import extend, validator_for
from referencing import Registry

from fma_django.errors import InvalidValue, SchemaViolation

# With an empty registry a schema that refers to another document fails, instead of making the server fetch it.
NOTHING_ELSEWHERE: Registry[Any] = Registry()
DATA = frozenset({"const", "default", "enum", "examples"})
"""The keywords whose values are no schemas."""
BY_NAME = frozenset(
    {"$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"}
)
"""The keywords whose values are schemas by names that anybody may choose."""


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
    _require_linear_patterns(schema, field)


def require_schema(value: Any, schema: Any, *, field: str) -> None:
    """Raises SchemaViolation, naming the place."""
    kind = _linear(validator_for(schema, default=jsonschema.Draft202012Validator))
    validator = kind(schema, registry=NOTHING_ELSEWHERE)
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


def _require_linear_patterns(schema: Any, field: str) -> None:
    """Refuse patterns that a client could make take for ever: those that are no regular expressions."""
    for pattern in _patterns_in(schema):
        try:
            _compiled(pattern)
        except re2.error as error:
            reason = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
            raise InvalidValue(
                f"the pattern {_short(repr(pattern))} cannot be searched in linear time, without look-around and "
                f"backreferences: {reason}",
                field=field,
            ) from error
    if _has(schema, "unevaluatedProperties") and _has(schema, "patternProperties"):
        raise InvalidValue(
            "patternProperties beside unevaluatedProperties may take for ever; use additionalProperties",
            field=field,
        )


def _patterns_in(schema: Any) -> Iterator[str]:
    for each in _schemas_in(schema):
        if isinstance(pattern := each.get("pattern"), str):
            yield pattern
        if isinstance(patterns := each.get("patternProperties"), dict):
            yield from patterns


def _schemas_in(schema: Any) -> Iterator[dict[str, Any]]:
    """The schema and all those within it: a property may have the name of a keyword."""
    if isinstance(schema, list):
        for member in schema:
            yield from _schemas_in(member)
    if not isinstance(schema, dict):
        return
    yield schema
    for keyword, member in schema.items():
        if keyword in BY_NAME and isinstance(member, dict):
            yield from _schemas_in(list(member.values()))
        elif keyword not in DATA:
            yield from _schemas_in(member)


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)


def _found(pattern: str, text: str) -> bool:
    """Whether the pattern is somewhere in the text."""
    return _compiled(pattern).search(text) is not None


def _pattern(validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[Any]:
    if validator.is_type(value, "string") and not _found(pattern, value):
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Any, value: Any, schema: Any) -> Iterator[Any]:
    if not validator.is_type(value, "object"):
        return
    for pattern, subschema in patterns.items():
        for name, member in value.items():
            if _found(pattern, name):
                yield from validator.descend(member, subschema, path=name, schema_path=pattern)


def _additional_properties(validator: Any, allowed: Any, value: Any, schema: Any) -> Iterator[Any]:
    if not validator.is_type(value, "object"):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    extras = [
        name for name in value if name not in known and not any(_found(pattern, name) for pattern in patterns)
    ]
    if validator.is_type(allowed, "object"):
        for name in extras:
            yield from validator.descend(value[name], allowed, path=name)
    elif not allowed and extras:
        said = ", ".join(repr(name) for name in sorted(extras))
        yield jsonschema.ValidationError(f"Additional properties are not allowed (found {said})")


def _unique_items(validator: Any, is_wanted: Any, value: Any, schema: Any) -> Iterator[Any]:
    if not is_wanted or not validator.is_type(value, "array"):
        return
    # By their text: hashes of texts are random, so that nobody can choose items that collide.
    seen = {json.dumps(_canonical(item), sort_keys=True) for item in value}
    if len(seen) < len(value):
        yield jsonschema.ValidationError(f"{value!r} has non-unique elements")


def _canonical(value: Any) -> Any:
    """The same for equal JSON values: 1.0 is 1."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    if isinstance(value, dict):
        return {name: _canonical(item) for name, item in value.items()}
    return value


@cache
def _linear(kind: Any) -> Any:
    """The validator of a draft, with patterns searched and items compared in linear time."""
    return extend(  # type: ignore[no-untyped-call]
        kind,
        {
            "pattern": _pattern,
            "patternProperties": _pattern_properties,
            "additionalProperties": _additional_properties,
            "uniqueItems": _unique_items,
        },
    )


def _has(schema: Any, keyword: str) -> bool:
    return any(keyword in each for each in _schemas_in(schema))
