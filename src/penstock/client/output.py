"""Structured output: what a program asks for → the schema that a model is told; the reply's text → the value.

A program asks with a type (a msgspec struct, a dataclass, a pydantic model, `list[City]`, …) or with a JSON Schema as a
dict. What is told of a type is in the form that every provider takes: an object at the root (anything else stands in
its member `value`), every member required, none besides. What comes back is checked against what the program asked for,
and not against what the provider was told. A schema that is none raises `InvalidSchema`, a reply that does not fit
`SchemaMismatch`, whose message says where and holds none of the reply.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import InvalidSchema, SchemaMismatch
from penstock.canon.events import BlockStart, Delta, Event, Finish
from penstock.canon.request import OutputFormat
from penstock.client.partial import Growth
from penstock.client.schema import Schema, closed, decode_hook, is_strict, refers_to, schema_of

if TYPE_CHECKING:
    from penstock.canon.response import Response

#: the member that holds what is no object
VALUE = "value"

_FENCED = re.compile(r"\s*```[^\n]*\n(.*?)\n?\s*```\s*", re.DOTALL)
#: what a message of msgspec's may repeat of the text
_REPEATED = re.compile(r" value ('.*'|-?\d+)(?= - at |$)", re.DOTALL)


class Shape:
    """`schema` is what the model is told; `inside` the member that the value stands in, None where it is the root."""

    def __init__(self, given: Any) -> None:
        self._type: Any = None
        self._validator: Any = None
        if isinstance(given, Mapping):
            schema = dict(given)
            self._validator = _validator(schema)
            name = schema.get("title")
        else:
            self._type = given
            schema = closed(schema_of(given, "The type"))
            name = getattr(given, "__name__", None)
        self.inside = None if schema.get("type") == "object" else VALUE
        if self.inside is not None:
            schema = _wrapped(schema)
        self.schema: Schema = schema
        self._name = re.sub(r"[^a-zA-Z0-9_-]", "_", str(name or "reply"))[:64]

    @property
    def format(self) -> OutputFormat:
        return OutputFormat("schema", self.schema, self._name, True if is_strict(self.schema) else None)

    def parsed(self, response: Response) -> Any:
        """The value that a whole reply is; None for one that calls tools instead."""
        if response.tool_calls:
            return None
        text = response.text
        try:
            return self._read(text)
        except _Unfit as unfit:
            reason = response.finish.reason if response.finish is not None else None
            reason = "refusal" if response.refusal is not None else reason
            raise SchemaMismatch(f"{_WHY.get(reason or '', _UNFIT)}: {unfit}.", text=text, fix=_fix(reason)) from None

    def _read(self, text: str) -> Any:
        fenced = _FENCED.fullmatch(text)
        try:
            value = msgspec.json.decode(fenced[1] if fenced else text.lstrip("\ufeff"))
        except (msgspec.DecodeError, RecursionError) as error:
            raise _Unfit(f"it is no JSON ({error})") from None
        if self.inside is not None:
            if not isinstance(value, dict) or self.inside not in value:
                raise _Unfit(f"there is no member `{self.inside}`")
            value = value[self.inside]
        if self._validator is not None:
            _validate(self._validator, value)
            return value
        try:
            return msgspec.convert(value, self._type, dec_hook=decode_hook, str_keys=True)
        except msgspec.ValidationError as error:
            raise _Unfit(_REPEATED.sub(" value", str(error))) from None


class _Unfit(Exception):
    pass


_UNFIT = "The reply does not fit the schema"
_WHY = {
    "length": "The reply was cut by its limit and does not fit the schema",
    "context_full": "The reply was cut at the context's end and does not fit the schema",
    "refusal": "The model refused, and its reply does not fit the schema",
    "content_filter": "The reply was stopped by a filter and does not fit the schema",
}


def _fix(reason: str | None) -> str:
    if reason == "length":
        return "Raise max_tokens."
    return "Its text is in the error's .text; ask again, or ask a model that keeps to schemas."


def growing(shape: Shape) -> Callable[[Event], Any]:
    """Event → what is certain of the value, where there is more of it than before; else None."""
    growth = Growth(shape.schema, shape.inside)
    texts: set[int] = set()

    def pick(event: Event) -> Any:
        if type(event) is Delta:
            return growth.feed(event.text) if event.i in texts else None
        if type(event) is BlockStart and event.kind == "text":
            texts.add(event.i)
        return growth.close() if type(event) is Finish else None

    return pick


# --- a schema of the program's own -----------------------------------------------------------------------------------


def _validator(schema: Schema) -> Any:
    import jsonschema  # 100 ms, for programs that pass a schema as a dict

    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise InvalidSchema(
            f"The schema is none at `{error.json_path}`: {error.message}.", param="schema", fix="Write JSON Schema."
        ) from None
    _refuse_lost(schema)
    return kind(schema)


def _refuse_lost(schema: Schema) -> None:
    """References must lead somewhere within: no provider fetches any."""

    def look(node: Any) -> None:
        if isinstance(node, list):
            for each in node:
                look(each)
        if not isinstance(node, dict):
            return
        reference = node.get("$ref")
        if isinstance(reference, str) and not _leads(schema, reference):
            raise InvalidSchema(
                f"The schema refers to `{reference}`, which is not in it.",
                param="schema",
                fix="Put what it refers to under $defs, and write #/$defs/….",
            )
        for key, value in node.items():
            if key not in ("enum", "const", "default", "examples"):
                look(value)

    look(schema)


def _leads(schema: Schema, reference: str) -> bool:
    if not reference.startswith("#"):
        return False
    node: Any = schema
    for step in reference.removeprefix("#").lstrip("/").split("/") if len(reference) > 1 else ():
        if not isinstance(node, dict):
            return False
        node = node.get(step.replace("~1", "/").replace("~0", "~"))
    return node is not None


def _validate(validator: Any, value: Any) -> None:
    import jsonschema

    error = jsonschema.exceptions.best_match(validator.iter_errors(value))
    if error is not None:  # its own message repeats what the model said
        wanted = msgspec.json.encode(error.validator_value).decode()
        raise _Unfit(f"`{error.validator}` is not kept at `{error.json_path}` (it wants {wanted[:200]})")


# --- the form that providers take ------------------------------------------------------------------------------------


def _wrapped(schema: Schema) -> Schema:
    """An object round what is none. Definitions stay at the root, where their references look."""
    if refers_to("#", schema):
        raise InvalidSchema(
            "The schema refers to its own root, which must be an object.",
            param="schema",
            fix="Put it under $defs, and refer to it there.",
        )
    inner = {key: value for key, value in schema.items() if key not in ("$defs", "definitions", "$schema")}
    outer = {key: value for key, value in schema.items() if key in ("$defs", "definitions", "$schema")}
    return {
        "type": "object",
        "properties": {VALUE: inner},
        "required": [VALUE],
        "additionalProperties": False,
        **outer,
    }
