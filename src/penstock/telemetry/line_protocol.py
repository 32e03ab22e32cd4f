"""Records as InfluxDB's line protocol: one point `llm_request` per record. Pure; no value can forge a point or a field.

`https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/`. Its three versions unescape backslashes each
in its own way, so none is written into a tag: what a tag cannot hold safely is replaced, and the field beside it (a
quoted string, in which everything can stand) has the rest. Unknown is left out, never 0.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from penstock.telemetry.record import CallRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MEASUREMENT = "llm_request"

#: by tag, the record's field; few different values each, so that series stay few
TAGS = {
    "finish_reason": "finish_reason",
    "key_name": "key_name",
    "model": "model",
    "outcome": "outcome",
    "provider": "provider",
    "streaming": "stream",
}
#: the record's own fields that are no tag; `model_requested` stands in for a model that never answered
FIELDS = tuple(name for name in CallRecord.__struct_fields__ if name != "time" and name not in TAGS.values())

_FIELDS_AT = [(at, name) for at, name in enumerate(CallRecord.__struct_fields__) if name in FIELDS]

MAX_TAG_CHARS = 200
MAX_STRING_CHARS = 1000

#: how many of it are a second
PRECISIONS = {"ns": 10**9, "us": 10**6, "ms": 10**3, "s": 1}

_PLAIN_TAG = re.compile(r"[A-Za-z0-9._:/@+-]+")
_TAG_ESCAPES = str.maketrans({",": "\\,", "=": "\\=", " ": "\\ ", "\\": "/"})
_STRING_ESCAPES = str.maketrans({'"': '\\"', "\\": "\\\\"})


def point(record: CallRecord, number: int = 0, precision: str = "ns") -> str:
    """One line, without its end.

    Points of one series and one moment overwrite each other. So nanoseconds, which no record has, are `number`'s: give
    each record of a process the next one.
    """
    tags = "".join(
        [f",{tag}={text}" for tag, name in TAGS.items() if (text := _tag(getattr(record, name))) is not None]
    )
    values = msgspec.structs.astuple(record)
    fields = ",".join(
        [f"{name}={text}" for at, name in _FIELDS_AT if (value := values[at]) is not None and (text := _field(value))]
    )
    return f"{MEASUREMENT}{tags} {fields} {_moment(record.time, number, precision)}"


def points(records: Sequence[CallRecord], first: int = 0, precision: str = "ns") -> bytes:
    """A line each, numbered from `first` on."""
    lines = [point(record, number, precision) for number, record in enumerate(records, first)]
    return ("\n".join(lines) + "\n").encode("utf-8", "replace")


def _moment(seconds: float, number: int, precision: str) -> int:
    if precision == "ns":
        return int(seconds * 10**6) * 1000 + number % 1000
    return int(seconds * PRECISIONS[precision])


@lru_cache(maxsize=256)  # most names are those of the record before
def _tag(value: object) -> str | None:
    if value is None or value == "":
        return None
    if value is True or value is False:
        return "true" if value else "false"
    text = str(value)
    if len(text) <= MAX_TAG_CHARS and _PLAIN_TAG.fullmatch(text):
        return text
    return printable(text[:MAX_TAG_CHARS]).translate(_TAG_ESCAPES)


def printable(text: str) -> str:
    """Every line end, control character and surrogate replaced: no escape of theirs is understood everywhere."""
    if text.isprintable():
        return text
    return "".join([char if char.isprintable() else "\ufffd" for char in text])


def _boolean(value: bool) -> str:
    return "true" if value else "false"


def _integer(value: int) -> str | None:
    return f"{value}i" if -(2**63) <= value < 2**63 else None


def _float(value: float) -> str | None:
    return repr(value) if math.isfinite(value) else None


@lru_cache(maxsize=256)
def _string(value: str) -> str:
    text = printable(value[:MAX_STRING_CHARS])
    if '"' in text or "\\" in text:
        text = text.translate(_STRING_ESCAPES)
    return f'"{text}"'


def _json(value: object) -> str:
    return _string(msgspec.json.encode(value).decode())


_WRITERS: dict[type, Callable[..., str | None]] = {bool: _boolean, int: _integer, float: _float, str: _string}


def _field(value: object) -> str | None:
    return None if value == () else _WRITERS.get(type(value), _json)(value)
