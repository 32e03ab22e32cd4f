"""Python types → JSON Schema, in the form that providers take: an object at the root, its references within reach.

Types are what msgspec knows (structs, dataclasses, typed dicts, enums, …) and pydantic's models. Pure. Raises
`InvalidSchema` for what cannot be said in JSON Schema.
"""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.canon.errors import InvalidSchema
from penstock.client import pydantic_models

Schema = dict[str, Any]

_DEFS = "#/$defs/"


def schema_of(type_: Any, what: str) -> Schema:
    """The type's schema, without a reference at its root. `what` names it for the error."""
    try:
        schema = msgspec.json.schema(type_, schema_hook=pydantic_models.schema_of)
    except (TypeError, ValueError, NameError, RecursionError) as error:
        told = str(error).splitlines()
        raise InvalidSchema(
            f"{what} cannot be said in JSON Schema: {(told or [type(error).__name__])[-1].rstrip('.:')}.",
            param="schema",
            fix="Use numbers, strings, lists, dicts, enums, dataclasses or msgspec structs.",
        ) from error
    return _rooted(_hoisted(schema))


def decode_hook(type_: type, value: Any) -> Any:
    """For `msgspec.convert`: what msgspec itself does not know."""
    return pydantic_models.converted(type_, value)


def _hoisted(schema: Schema) -> Schema:
    """Definitions that came with an inner schema (pydantic's) belong to the root, where their references look."""
    found: Schema = {}

    def without(node: Any) -> Any:
        if isinstance(node, list):
            return [without(each) for each in node]
        if not isinstance(node, dict):
            return node
        for name, each in node.get("$defs", {}).items():
            if found.setdefault(name, bare := without(each)) != bare:
                raise InvalidSchema(
                    f"Two types are called `{name}`.", param="schema", fix="Give one of the classes another name."
                )
        return {key: without(value) for key, value in node.items() if key != "$defs"}

    bare = without(schema)
    return {**bare, "$defs": found} if found else bare


def _rooted(schema: Schema) -> Schema:
    """What the root refers to, in its place; definitions that nothing refers to any more are left out."""
    reference = schema.get("$ref")
    if not isinstance(reference, str) or not reference.startswith(_DEFS):
        return schema
    defs: Schema = dict(schema.get("$defs", {}))
    name = reference.removeprefix(_DEFS)
    root = dict(defs[name])
    if not refers_to(reference, [root, *(value for key, value in defs.items() if key != name)]):
        del defs[name]
    return {**root, "$defs": defs} if defs else root


def refers_to(reference: str, node: Any) -> bool:
    if isinstance(node, dict):
        return node.get("$ref") == reference or any(refers_to(reference, each) for each in node.values())
    return isinstance(node, list) and any(refers_to(reference, each) for each in node)


# --- the form that providers can hold a model to ---------------------------------------------------------------------


def closed(node: Any) -> Any:
    """Objects with every member required and none besides; defaults, which only some providers take, left out."""
    if isinstance(node, list):
        return [closed(each) for each in node]
    if not isinstance(node, dict):
        return node
    if "properties" in node and isinstance(node["properties"], dict):
        members = {name: closed(each) for name, each in node["properties"].items()}
        rest = {key: closed(value) for key, value in node.items() if key not in ("properties", "default")}
        return {"additionalProperties": False, **rest, "properties": members, "required": list(members)}
    rest = {
        key: value if key in ("enum", "const") else closed(value)
        for key, value in node.items()
        if key not in ("default", "discriminator")
    }
    if "oneOf" in rest and "anyOf" not in rest:  # what strict providers know
        rest["anyOf"] = rest.pop("oneOf")
    return rest


#: what strict mode of OpenAI's knows (2026-11); anything else is sent without it
_STRICT_WORDS = frozenset(
    {
        "$defs", "$ref", "additionalProperties", "anyOf", "const", "description", "enum", "exclusiveMaximum",
        "exclusiveMinimum", "format", "items", "maxItems", "maximum", "minItems", "minimum", "multipleOf", "pattern",
        "properties", "required", "title", "type",
    }
)  # fmt: skip


def is_strict(node: Any) -> bool:
    """Whether a provider can hold a model to all of it."""
    if not isinstance(node, dict) or not _STRICT_WORDS.issuperset(node):
        return False
    if "$ref" in node:
        return len(node) == 1 or set(node) <= {"$ref", "$defs", "title", "description"}
    if not ({"type", "anyOf", "enum", "const"} & set(node)):
        return False
    if "properties" in node or node.get("type") == "object":
        members = node.get("properties", {})
        if node.get("additionalProperties") is not False or set(node.get("required", ())) != set(members):
            return False
    inner = [*node.get("properties", {}).values(), *node.get("$defs", {}).values(), *node.get("anyOf", ())]
    if node.get("type") == "array":
        inner.append(node.get("items"))
    return all(map(is_strict, inner))
