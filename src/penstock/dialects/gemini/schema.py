"""Gemini's `Schema` (a subset of OpenAPI) → JSON Schema.

Type names are in upper case there, `nullable` is a member of its own, and counts may be strings. Pure; raises
`InvalidRequest` for one that is nested too deep.
"""

from __future__ import annotations

from typing import Any

from penstock.canon.errors import InvalidRequest
from penstock.dialects.gemini.spelling import camel

#: far more than anybody writes, and far less than the stack
_MAX_DEPTH = 64

_COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
#: about the order of what is generated, or about nothing
_LEFT_OUT = frozenset({"propertyOrdering", "nullable"})


def json_schema(given: Any, depth: int = 0) -> Any:
    """The JSON Schema that means the same. What is no object is left as it is, for the upstream to judge."""
    if not isinstance(given, dict):
        return given
    if depth > _MAX_DEPTH:
        raise InvalidRequest(
            f"A schema is nested more than {_MAX_DEPTH} levels deep.", param="tools", fix="Make it flatter."
        )
    depth += 1
    schema: dict[str, Any] = {}
    for name, value in given.items():
        # `$ref` and `$defs` are JSON Schema's own words, and are kept.
        name = name if name.startswith("$") else camel(name)
        if name in _LEFT_OUT:
            continue
        if name == "type":
            if (type_ := _type(value)) is not None:
                schema[name] = type_
        elif name in ("properties", "$defs", "defs") and isinstance(value, dict):
            schema[name] = {key: json_schema(inner, depth) for key, inner in value.items()}
        elif name in ("items", "additionalProperties"):
            schema[name] = json_schema(value, depth)
        elif name in ("anyOf", "oneOf", "allOf", "prefixItems") and isinstance(value, list):
            schema[name] = [json_schema(inner, depth) for inner in value]
        elif name in _COUNTS and isinstance(value, str) and value.isascii() and value.isdigit():
            schema[name] = int(value)
        elif name == "example":
            schema["examples"] = [value]
        else:
            schema[name] = value
    return _nullable(schema) if given.get("nullable") is True else schema


def _type(given: Any) -> Any:
    if isinstance(given, str):
        return None if given == "TYPE_UNSPECIFIED" else given.lower()
    if isinstance(given, list):
        return [_type(each) for each in given]
    return given


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    type_ = schema.get("type")
    if isinstance(type_, str):
        schema["type"] = [type_, "null"]
        if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
            schema["enum"] = [*schema["enum"], None]
        return schema
    if isinstance(schema.get("anyOf"), list):
        schema["anyOf"] = [*schema["anyOf"], {"type": "null"}]
    return schema
