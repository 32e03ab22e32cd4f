"""A JSON Schema → the part of it that Anthropic's structured output takes; the rest is said in words.

Its grammar knows no bounds of numbers, lengths or counts, and wants every object closed; a schema with one of them is
refused whole (400, seen 2025-11). What it does not take goes into the description, which the model reads. Pure.
"""

from __future__ import annotations

from typing import Any

import msgspec

_UNKNOWN = frozenset(
    {
        "exclusiveMaximum", "exclusiveMinimum", "maxItems", "maxLength", "maxProperties", "maximum", "minItems",
        "minLength", "minProperties", "minimum", "multipleOf", "uniqueItems",
    }
)  # fmt: skip
#: what holds values and not schemas
_VALUES = frozenset({"enum", "const", "default", "examples", "required"})
#: what holds schemas by names of the caller's own
_NAMED = frozenset({"properties", "$defs", "definitions"})


def output_schema(node: Any) -> Any:
    """The same schema, without what is refused."""
    if isinstance(node, list):
        return [output_schema(each) for each in node]
    if not isinstance(node, dict):
        return node
    taken: dict[str, Any] = {}
    told: list[str] = []
    for word, value in node.items():
        if word in _VALUES:
            taken[word] = value
        elif word in _NAMED and isinstance(value, dict):
            taken[word] = {name: output_schema(each) for name, each in value.items()}
        elif word == "minItems" and value in (0, 1):
            taken[word] = value
        elif word in _UNKNOWN:
            told.append(f"{word}: {msgspec.json.encode(value).decode()}")
        else:
            taken[word] = output_schema(value)
    if told:
        said = f"{taken['description']}\n" if taken.get("description") else ""
        taken["description"] = f"{said}({', '.join(told)})"
    if taken.get("type") == "object" and "properties" in taken:
        taken.setdefault("additionalProperties", False)
    return taken
