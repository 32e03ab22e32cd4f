"""The schemas that Anthropic takes: without bounds, which it refuses, and which the model is told in words."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from penstock.canon.request import OutputFormat
from penstock.dialects.anthropic_messages.output import output_schema
from tests.dialects.conversations import asking, built

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "age": {"type": "integer", "minimum": 0, "maximum": 150, "description": "In years."},
        "minimum": {"type": "string", "enum": ["minLength"]},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/Tag"}, "minItems": 1, "maxItems": 3},
    },
    "required": ["age", "minimum"],
    "$defs": {"Tag": {"type": "string", "minLength": 2}},
}


def test_bounds_are_said_in_words() -> None:
    body, dropped = built("anthropic-messages", asking(output=OutputFormat("schema", SCHEMA)))
    assert body["output_config"]["format"]["schema"] == {
        "type": "object",
        "properties": {
            "age": {"type": "integer", "description": "In years.\n(minimum: 0, maximum: 150)"},
            "minimum": {"type": "string", "enum": ["minLength"]},
            "tags": {"type": "array", "items": {"$ref": "#/$defs/Tag"}, "minItems": 1, "description": "(maxItems: 3)"},
        },
        "required": ["age", "minimum"],
        "additionalProperties": False,
        "$defs": {"Tag": {"type": "string", "description": "(minLength: 2)"}},
    }
    assert dropped == ()


@pytest.mark.parametrize(
    "value", [{"age": 3, "minimum": "minLength"}, {"age": 3, "minimum": "minLength", "tags": ["ab"]}]
)
def test_what_fits_the_schema_fits_what_is_left_of_it(value: Any) -> None:
    jsonschema.Draft202012Validator.check_schema(output_schema(SCHEMA))
    assert jsonschema.Draft202012Validator(SCHEMA).is_valid(value)
    assert jsonschema.Draft202012Validator(output_schema(SCHEMA)).is_valid(value)


def test_a_schema_of_closed_objects_passes_as_it_is() -> None:
    plain = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    assert output_schema(plain) == plain
