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
        found.update({name: without(each) for name, each in node.get("$defs", {}).items()})
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
