"""The configuration's shape as a JSON Schema, made from its structs, for editors that complete and check YAML.

Every key carries its line of documentation: the `#:` comment above the field in the struct's own source, so that there
is one text. An upstream needs a `url` or a `provider`, which is more than its struct can say.
"""

from __future__ import annotations

import inspect
import re
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import inspect as shapes

from penstock.canon.key import Moment
from penstock.config.keys import written_moment
from penstock.config.model import Config, Duration, Size, Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

    Schema = dict[str, Any]

DRAFT = "https://json-schema.org/draft/2020-12/schema"

#: how values that YAML has no word for are written
_WRITTEN: dict[type, Schema] = {
    Duration: {"type": ["string", "number"], "pattern": r"^\d+(\.\d+)?\s*(ms|s|m|h|d)?$", "examples": ["500ms", "5s"]},
    Size: {"type": ["string", "integer"], "pattern": r"^\d+\s*(B|KiB|MiB|GiB|kB|MB|GB)?$", "examples": ["100MiB"]},
    Moment: {"type": "string", "examples": ["2027-01-31", "2027-01-31T18:00:00Z"]},
}
_PLAIN: dict[type[shapes.Type], Schema] = {
    shapes.NoneType: {"type": "null"},
    shapes.BoolType: {"type": "boolean"},
    shapes.IntType: {"type": "integer"},
    shapes.FloatType: {"type": "number"},
    shapes.StrType: {"type": "string"},
    shapes.AnyType: {},
}
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum", "pattern": "pattern"}

_FIELD = re.compile(r"^    (\w+)\s*:")
_LINE = re.compile(r"^    #: ?(.*)")


def schema() -> Schema:
    """The whole file's. Every struct stands in `$defs` once."""
    definitions: dict[str, Schema] = {}
    top = _struct(Config, definitions)
    return {"$schema": DRAFT, "title": "Penstock's configuration", **top, "$defs": definitions}


@cache
def documentation(struct: type[msgspec.Struct]) -> dict[str, str]:
    """Field → its line of documentation."""
    found: dict[str, str] = {}
    said: list[str] = []
    for line in inspect.getsource(struct).splitlines():
        comment, field = _LINE.match(line), _FIELD.match(line)
        if comment:
            said.append(comment[1])
        elif field:
            if said:
                found[field[1]] = " ".join(said)
            said = []
    return found


def described(text: str) -> str:
    """A line of documentation as a sentence."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def structs_of(type_: shapes.Type) -> Iterator[type[msgspec.Struct]]:
    """The structs that a value of this type may be, or may hold in a mapping or a list."""
    if isinstance(type_, shapes.StructType):
        yield type_.cls
    elif isinstance(type_, shapes.UnionType):
        for member in type_.types:
            yield from structs_of(member)
    elif isinstance(type_, shapes.DictType):
        yield from structs_of(type_.value_type)
    elif isinstance(type_, shapes.ListType | shapes.VarTupleType):
        yield from structs_of(type_.item_type)


def _struct(struct: type[msgspec.Struct], definitions: dict[str, Schema]) -> Schema:
    info = shapes.type_info(struct)
    assert isinstance(info, shapes.StructType)
    said = documentation(struct)
    properties: dict[str, Schema] = {}
    for field in info.fields:
        entry = _type(field.type, definitions)
        if field.name in said:
            entry["description"] = described(said[field.name])
        if field.default is not msgspec.NODEFAULT:
            entry["default"] = written(field.default)
        properties[field.encode_name] = entry
    found: Schema = {"type": "object", "description": inspect.cleandoc(struct.__doc__ or "")}
    found |= {"properties": properties, "additionalProperties": False}
    if struct is Upstream:
        found["anyOf"] = [{"required": ["url"]}, {"required": ["provider"]}]
    elif required := [field.encode_name for field in info.fields if field.required]:
        found["required"] = required
    return found


def _type(type_: shapes.Type, definitions: dict[str, Schema]) -> Schema:
    if isinstance(type_, shapes.Metadata):
        return {**_type(type_.type, definitions), **(type_.extra_json_schema or {})}
    if isinstance(type_, shapes.CustomType):
        return dict(_WRITTEN.get(type_.cls, {}))
    if isinstance(type_, shapes.StructType):
        name = type_.cls.__name__
        if name not in definitions:
            definitions[name] = {}  # its place in the order; and no end without it, were one to hold itself
            definitions[name] |= _struct(type_.cls, definitions)
        return {"$ref": f"#/$defs/{name}"}
    if isinstance(type_, shapes.UnionType):
        return {"anyOf": [_type(member, definitions) for member in type_.types]}
    if isinstance(type_, shapes.LiteralType):
        return {"enum": list(type_.values)}
    if isinstance(type_, shapes.DictType):
        return {"type": "object", "additionalProperties": _type(type_.value_type, definitions)}
    if isinstance(type_, shapes.ListType | shapes.VarTupleType):
        return {"type": "array", "items": _type(type_.item_type, definitions)}
    bounds = {key: limit for name, key in _BOUNDS.items() if (limit := getattr(type_, name, None)) is not None}
    return {**_PLAIN[type(type_)], **bounds}


# --- values as a file has them ----------------------------------------------------------------------------------------

_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "m"), (1.0, "s"))
_BINARY = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def written(value: Any) -> Any:
    """A value of the configuration as YAML would hold it: `30d`, `100MiB`, mappings and lists of such."""
    if isinstance(value, Duration):
        return written_duration(value)
    if isinstance(value, Size):
        unit = next(((size, name) for size, name in _BINARY if value >= size and value % size == 0), None)
        return f"{value // unit[0]}{unit[1]}" if unit else int(value)
    if isinstance(value, Moment):
        return written_moment(value)
    if isinstance(value, dict):
        return {key: written(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [written(inner) for inner in value]
    if isinstance(value, msgspec.Struct):
        return {name: written(getattr(value, name)) for name in value.__struct_fields__}
    return value


def written_duration(seconds: float) -> str:
    """In the largest unit of which it is a whole number; else in seconds, or below one in milliseconds."""
    for size, name in _UNITS:
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f}{name}"
    amount, name = (seconds, "s") if seconds >= 1 else (seconds * 1000, "ms")
    return f"{amount:.6f}".rstrip("0").rstrip(".") + name
