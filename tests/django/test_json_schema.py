"""JSON Schemas of developers: applied as JSON Schema says, and within a time that no pattern can exceed."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from fma_django.errors import InvalidValue, SchemaViolation
from fma_django.record.json_schema import require_schema, require_valid_schema

EVIL = "^(x|xx|xxx)+$"
LONG = "x" * 100 + "!"


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string", "pattern": EVIL}, LONG),
        ({"patternProperties": {EVIL: True}, "additionalProperties": False}, {LONG: 1}),
        ({"propertyNames": {"pattern": EVIL}}, {LONG: 1}),
        ({"items": {"pattern": "(x+x+)+y"}}, ["y" + LONG]),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "pattern": EVIL}, LONG),
    ],
)
def test_a_pattern_takes_linear_time(schema: Any, value: Any) -> None:
    """Each would take Python's `re` longer than the test may last."""
    require_valid_schema(schema, field="update_schema")
    with pytest.raises(SchemaViolation, match="does not match the model's schema"):
        require_schema(value, schema, field="data")


@pytest.mark.parametrize("pattern", ["^(?!x)", r"(x)\1", "(?<=a)b", "x{1001}"])
@pytest.mark.parametrize(
    "where", [lambda p: {"pattern": p}, lambda p: {"prefixItems": [{"patternProperties": {p: True}}]}]
)
def test_a_pattern_that_is_not_regular_is_refused_when_it_is_saved(where: Any, pattern: str) -> None:
    with pytest.raises(InvalidValue, match="linear time") as refused:
        require_valid_schema({"allOf": [where(pattern)]}, field="update_schema")
    assert refused.value.facts["field"] == "update_schema"


@pytest.mark.parametrize("name", ["default", "enum", "const", "examples"])
@pytest.mark.parametrize(
    "keyword", ["properties", "$defs", "definitions", "patternProperties", "dependentSchemas", "dependencies"]
)
def test_a_schema_with_the_name_of_a_keyword_is_looked_at(keyword: str, name: str) -> None:
    with pytest.raises(InvalidValue, match="linear time"):
        require_valid_schema({"items": {keyword: {name: {"pattern": "(?!x)"}}}}, field="f")


def test_a_property_with_the_name_of_a_keyword_is_none() -> None:
    names = {"unevaluatedProperties": True, "patternProperties": {"type": "object"}, "pattern": {}}
    require_valid_schema({"properties": names}, field="f")
    require_schema({"pattern": 1}, {"properties": names}, field="f")


def test_what_only_looks_like_a_pattern_is_none() -> None:
    require_valid_schema(
        {"enum": [{"pattern": "(?!x)"}], "properties": {"pattern": {"const": "(?!"}}}, field="f"
    )


@pytest.mark.parametrize(
    ("schema", "fits", "does_not"),
    [
        ({"pattern": "b+"}, "abb", "ac"),
        ({"pattern": "^[é-ü]+$"}, "üé", "abc"),
        ({"pattern": r"^\d{3}$"}, "123", "1234"),
        ({"patternProperties": {"^n_": {"type": "integer"}}}, {"n_a": 1, "b": "x"}, {"n_a": "x"}),
        (
            {"properties": {"a": True}, "patternProperties": {"^n_": True}, "additionalProperties": False},
            {"a": 1, "n_b": 2},
            {"a": 1, "c": 2},
        ),
        (
            {"properties": {"a": True}, "additionalProperties": {"type": "string"}},
            {"a": 1, "b": "x"},
            {"b": 1},
        ),
        ({"additionalProperties": False}, {}, {"a": 1}),
        ({"uniqueItems": True}, [1, True, 0, False, "1", [1], {"a": 1}, {"a": 2}, None], [1, 2, 1.0]),
        ({"uniqueItems": True}, [{"a": 1}, {"a": 1, "b": 2}], [{"a": 1, "b": [2]}, {"b": [2.0], "a": 1}]),
        ({"uniqueItems": True}, [1e300, 1.5, 2**53 + 1, 2.0**53], [0, -0.0]),
        ({"uniqueItems": False}, [1, 1], None),
        ({"additionalProperties": True}, {"a": 1}, None),
    ],
)
def test_patterns_mean_what_they_mean_in_json_schema(schema: Any, fits: Any, does_not: Any) -> None:
    require_schema(fits, schema, field="data")
    if does_not is not None:
        with pytest.raises(SchemaViolation, match="does not match the model's schema"):
            require_schema(does_not, schema, field="data")


@pytest.mark.parametrize(
    "item", [lambda n: {"a": n}, lambda n: [-1 - (n >> bit & 1) for bit in range(16)], lambda n: n if n % 2 else str(n)]
)  # fmt: skip
def test_items_are_compared_in_linear_time(item: Callable[[int], Any]) -> None:
    items = [item(number) for number in range(30_000)]
    begun = time.process_time()
    require_schema(items, {"uniqueItems": True}, field="data")
    assert time.process_time() - begun < 10  # compared one by one, 4,000 took two minutes


def test_what_cannot_be_limited_is_refused_when_it_is_saved() -> None:
    schema = {"allOf": [{"patternProperties": {EVIL: True}}], "unevaluatedProperties": False}
    with pytest.raises(InvalidValue, match="additionalProperties"):
        require_valid_schema(schema, field="update_schema")
